"""NVIDIA cards: what the driver tells of them, and what the bus tells where there is no driver."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

MIB = 1024**2
PCI = Path("/sys/bus/pci/devices")
_NVIDIA = "0x10de"
_DISPLAY = "0x03"
"""A device's class, where it is a display or a 3D controller: cards have an audio device, too."""
_QUERY = ["--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
_ANSWER_SECONDS = 20


@dataclass(frozen=True)
class Card:
    name: str
    memory_bytes: int
    driver: str


def told_by_driver() -> list[Card] | None:
    """None: there is no driver that answers."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    try:
        told = subprocess.run(
            [command, *_QUERY], capture_output=True, text=True, timeout=_ANSWER_SECONDS, check=True
        )
    except (subprocess.SubprocessError, OSError):
        return None
    return parsed(told.stdout)


def parsed(csv: str) -> list[Card]:
    """Of ``name, MiB, driver`` a line. What has no memory of its own is no card for us."""
    cards = []
    for line in csv.splitlines():
        cells = [cell.strip() for cell in line.rsplit(",", 2)]
        if len(cells) == 3 and cells[1].isdecimal():  # a warning of the driver's may lie between
            cards.append(Card(cells[0], int(cells[1]) * MIB, cells[2]))
    return cards


def on_the_bus(devices: Path = PCI) -> bool:
    """Whether an NVIDIA card is plugged in, driver or not."""
    return any(_is_card(device) for device in devices.glob("*"))


def _is_card(device: Path) -> bool:
    try:
        vendor, kind = (device / "vendor").read_text(), (device / "class").read_text()
    except OSError:
        return False
    return vendor.strip() == _NVIDIA and kind.startswith(_DISPLAY)
