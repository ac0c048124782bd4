"""One worker a device: in a home by a lock file, of a host's cards by their names too."""

import socket
from dataclasses import dataclass
from typing import Self

from core.config import Settings
from core.files.lock import LockFile
from worker.device import Device


class DeviceTaken(Exception):
    """Another worker drives the device."""


@dataclass(frozen=True)
class DeviceLock:
    """Held for life; the kernel lets go of both parts when the process is dead."""

    file: LockFile
    card: socket.socket | None

    @classmethod
    def take(cls, settings: Settings, device: Device) -> Self:
        """Raises DeviceTaken, which says by whom and what to do."""
        file = LockFile.take(settings.run_path / f"{device.name.replace(':', '-')}.lock")
        if file is None:
            other = ": name a share of your own, such as cpu:7" if device.is_cpu else ""
            raise DeviceTaken(
                f"another worker of {settings.root} drives {device.name} already{other}"
            )
        try:
            return cls(file, None if device.is_cpu else _take_card(device))
        except DeviceTaken:
            file.release()
            raise

    def release(self) -> None:
        self.file.release()
        if self.card is not None:
            self.card.close()


def _take_card(device: Device) -> socket.socket:
    """Of sockets without a file the kernel keeps each name once, and takes it back when the process
    is dead."""
    card = socket.socket(socket.AF_UNIX)
    try:
        card.bind(f"\0stillroom/{device.uuid}")
    except OSError as error:
        card.close()
        raise DeviceTaken(
            f"another worker of this host drives {device.name} ({device.uuid}) from a home of its "
            "own: end it first, or name another card"
        ) from error
    return card
