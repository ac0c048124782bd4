"""The machine: system, Python, PyTorch, cards, memory, disk."""

import os
import platform
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from api.doctor.cards import Card
from api.doctor.observation import Observation
from api.doctor.torch_build import TorchBuild
from core.config import GIB, Settings
from core.files.space import free_bytes

OLDEST_PYTHON = (3, 11)
HOST_BYTES = 12 * 10**9
"""What loading SDXL and sending it to a card takes of the host's memory, with some room."""
HOME_BYTES = 30 * 10**9
"""SDXL and SSD-1B in half precision, and what some trainings leave."""


def system(name: str = platform.system(), kernel: str = platform.release()) -> Observation:
    if name != "Linux":
        return Observation(
            "bad",
            "system",
            f"{name} is not supported: on Windows run it in WSL2 (`wsl --install` in an "
            "administrator's PowerShell, then all commands in the Ubuntu that it opens).",
        )
    inside = " in WSL2" if "microsoft" in kernel.lower() else ""
    return Observation("good", "system", f"Linux {kernel}{inside}")


def python(version: tuple[int, int] = sys.version_info[:2]) -> Observation:
    told = ".".join(map(str, version))
    if version < OLDEST_PYTHON:
        needed = ".".join(map(str, OLDEST_PYTHON))
        return Observation(
            "bad", "python", f"Python {told} is too old: it takes {needed} or newer."
        )
    return Observation("good", "python", f"Python {told}")


def torch(build: TorchBuild | None, cards: Sequence[Card] | None, plugged_in: bool) -> Observation:
    """``cards``: None where no driver answers."""
    if build is None:
        return Observation(
            "note", "torch", "PyTorch is not installed: this environment is a front end alone."
        )
    made_for = f"CUDA {build.cuda}" if build.cuda else "the CPU"
    told = f"PyTorch {build.version}, built for {made_for}"
    if (cards or plugged_in) and build.cuda is None:
        plain = build.version.partition("+")[0]
        return Observation(
            "bad",
            "torch",
            f"{told}, beside an NVIDIA card that it cannot use. Install the build for CUDA: "
            f"`pip install --force-reinstall torch=={plain}`.",
        )
    return Observation("good", "torch", told)


def cards_found(cards: Sequence[Card] | None, plugged_in: bool) -> Iterator[Observation]:
    if cards is None and plugged_in:
        yield Observation(
            "bad",
            "card",
            "An NVIDIA card is plugged in and no driver answers. Install your distribution's "
            "NVIDIA driver and restart; in WSL2 install it in Windows.",
        )
    elif not cards:
        yield Observation(
            "note",
            "card",
            "No NVIDIA card: jobs run on the CPU, which does for the nano models and not for "
            "SSD-1B or SDXL.",
        )
    for card in cards or ():
        memory = f"{card.memory_bytes / GIB:.0f} GiB"
        yield Observation("good", "card", f"{card.name}, {memory}, driver {card.driver}")


def memory(total_bytes: int | None = None) -> Observation:
    if total_bytes is None:
        total_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    told = f"{total_bytes / 1e9:.0f} GB"
    if total_bytes < HOST_BYTES:
        return Observation(
            "note",
            "memory",
            f"{told}: loading SDXL takes about {HOST_BYTES / 1e9:.0f}. SSD-1B takes half.",
        )
    return Observation("good", "memory", told)


def disk(settings: Settings) -> Observation:
    folder = _nearest(settings.root)
    free = free_bytes(folder)
    told = f"{free / 1e9:.0f} GB free at {settings.root}"
    if free < settings.min_free_bytes:
        least = settings.min_free_bytes / GIB
        return Observation(
            "bad",
            "disk",
            f"{told}: below {least:g} GiB no job begins. Make room, or move the home.",
        )
    if free < HOME_BYTES:
        return Observation(
            "note", "disk", f"{told}: SDXL, SSD-1B and some trainings take {HOME_BYTES / 1e9:.0f}."
        )
    return Observation("good", "disk", told)


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next(each for each in (folder, *folder.parents) if each.exists())
