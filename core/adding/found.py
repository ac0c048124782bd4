"""What a file or folder holds, as its headers tell, before a tensor is read."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.adding.family import Family
from core.adding.shapes import Shape
from core.errors import NotABase
from core.files import safetensors_header
from core.files.safetensors_header import Damaged, Entry, Header, shown
from core.files.safetensors_values import DTYPES
from core.layouts import UNetShape

_MAX_HEADER_BYTES = 100_000_000
"""The library's own cap: merges tell of all that went into them."""


@dataclass(frozen=True)
class Piece:
    """A tensor of a part: these bytes of that file, as they are or transposed. ``shape`` is what
    the part has."""

    path: Path
    dtype: str
    shape: Shape
    begin: int
    end: int
    transposed: bool = False

    @property
    def bytes(self) -> int:
        return self.end - self.begin


Part = Mapping[str, Piece]


@dataclass(frozen=True)
class Found:
    """A base that may be added.

    ``parts`` and ``configs`` are by the folder's names; ``scheduler`` and ``index`` are files'
    contents. ``tokenizers`` is a folder that has both, ``None`` where they must be lent.
    ``vae_takes_halves``: its configuration says that it does not overflow in half precision.
    ``files`` is all that was looked at: what the base's hash is of.
    """

    family: Family
    shape: UNetShape
    parts: Mapping[str, Part]
    configs: Mapping[str, Mapping[str, Any]]
    scheduler: Mapping[str, Any]
    index: Mapping[str, Any]
    tokenizers: Path | None
    vae_takes_halves: bool
    licence: str | None
    files: tuple[Path, ...]


def header_of(path: Path) -> Header:
    """Raises NotABase."""
    try:
        with path.open("rb") as file:
            return safetensors_header.read(file, max_bytes=_MAX_HEADER_BYTES)
    except Damaged as error:
        raise NotABase(
            f"{path.name} is no safetensors file, or is damaged or incomplete: {error}. Fetch it "
            "again."
        ) from error


def piece(path: Path, key: str, entry: Entry, shape: Shape, *, transposed: bool = False) -> Piece:
    """The whole of what ``key`` names in the file, as ``shape``. Raises NotABase."""
    if entry.dtype not in DTYPES:
        raise NotABase(
            f"`{shown(key)}` of {path.name} is in {entry.dtype}: weights are taken in "
            f"{', '.join(DTYPES)}. Bring the model in half precision, not the quantised one."
        )
    if entry.shape != (shape[::-1] if transposed else shape):
        raise NotABase(
            f"`{shown(key)}` of {path.name} has the shape {entry.shape}; a model of this layout "
            f"and width has {shape}."
        )
    return Piece(path, entry.dtype, shape, entry.start, entry.end, transposed)
