"""What a worker has before it does anything: its device, its name, its runner."""

from dataclasses import dataclass
from typing import Self

from core.config import Settings
from core.files.lock import LockFile
from core.ids import new_id
from core.workers.host import lock_path
from worker.device import Device, parse_pinned
from worker.device_lock import DeviceLock
from worker.link import Link


@dataclass(frozen=True)
class Quarters:
    device: Device
    device_lock: DeviceLock
    worker_id: str
    lock: LockFile
    """Of this worker alone; its runner holds it too."""
    link: Link

    @classmethod
    def take(cls, settings: Settings) -> Self:
        """Raises DeviceTaken. The runner is not started yet."""
        device = parse_pinned(settings.device)
        device_lock = DeviceLock.take(settings, device)
        worker_id = new_id("wrk")
        lock = LockFile.take(lock_path(settings.run_path, worker_id))
        assert lock is not None, "the name is new"
        return cls(device, device_lock, worker_id, lock, Link(lock))

    def leave(self) -> None:
        """Once its runner has ended."""
        self.lock.path.unlink(missing_ok=True)
        self.device_lock.release()
