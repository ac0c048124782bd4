"""What decides the numbers that a base computes: its files, the libraries, the arithmetic."""

from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import torch

from core.diffusion.components import Components
from core.files.digest import sha256_of_folder

LIBRARIES = ("torch", "diffusers", "transformers")


def identity(components: Components, *parts: str) -> dict[str, str]:
    """Two bases with the same identity give the same numbers, but for the thread count.

    Args:
        parts: subfolders of the pipeline, such as ``vae``.
    """
    return files(components, *parts) | arithmetic(components)


def files(components: Components, *parts: str) -> dict[str, str]:
    """Hashes of the parts' folders."""
    return {part: _digest(components.part_folder(part)) for part in parts}


def arithmetic(components: Components) -> dict[str, str]:
    """The libraries that compute, what they compute with and where."""
    return {name: version(name) for name in LIBRARIES} | {
        "dtype": str(components.dtype).removeprefix("torch."),
        "device": device_name(components.device),
    }


def device_name(device: torch.device) -> str:
    """Of the card, by its maker; of the CPU, just that."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@lru_cache(maxsize=64)
def _digest(folder: Path) -> str:
    """Read once a process: a base that changes under a process that has loaded it is no base."""
    return sha256_of_folder(folder)
