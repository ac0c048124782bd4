"""The header of a safetensors file: eight bytes of length, then JSON."""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

METADATA = "__metadata__"
MAX_HEADER_BYTES = 8 * 1024**2
"""Of a LoRA. Thousands of tensors take one megabyte, the tags of a large
dataset, which kohya's scripts write beside them, a few."""
MAX_NAME = 300
_MAX_DIMENSIONS, _MAX_COUNT = 8, 2**63 - 1
"""Of a shape: products of more would take their time."""
_LENGTH_BYTES = 8
ITEM_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}
"""Of a number, by the format's names of dtypes."""


class Damaged(ValueError):
    """The header contradicts itself or the file. Says how, in a clause."""


@dataclass(frozen=True)
class Entry:
    """One tensor; ``start`` and ``end`` count bytes of the whole file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    """``tensors`` by name, in the order in which they lie in the file."""

    metadata: dict[str, str]
    tensors: dict[str, Entry]


def read(file: BinaryIO, max_bytes: int = MAX_HEADER_BYTES) -> Header:
    """What a stranger's file says of itself, once all of it has been checked: every byte belongs to
    one tensor, every tensor has the bytes that its shape takes. Its header takes no more than
    ``max_bytes``.

    Raises:
        Damaged: it does not add up.
    """
    size = file.seek(0, 2)
    file.seek(0)
    start = file.read(_LENGTH_BYTES)
    if len(start) < _LENGTH_BYTES:
        raise Damaged(f"it ends after {size} bytes")
    (length,) = struct.unpack("<Q", start)
    if length > min(max_bytes, size - _LENGTH_BYTES):
        raise Damaged(
            f"it claims a header of {length:,} bytes: {max_bytes:,} are the most, and the file has "
            f"{size:,}"
        )
    entries = _parsed(file.read(length))
    metadata = entries.pop(METADATA, {})
    return Header(_text_by_text(metadata), _laid_out(entries, _LENGTH_BYTES + length, size))


def _parsed(header: bytes) -> dict[str, Any]:
    try:
        found = json.loads(header, object_pairs_hook=_unique, parse_constant=_no_number)
        json.dumps(found, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        raise Damaged(f"its header is no JSON that can be read: {_reason(error)}") from error
    if not isinstance(found, dict) or not header.startswith(b"{"):
        raise Damaged("its header is no JSON object")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name comes twice")
    return found


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _reason(error: Exception) -> str:
    return str(error) if type(error) is ValueError else type(error).__name__


def _text_by_text(metadata: Any) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(
        isinstance(text, str) for text in metadata.values()
    ):
        raise Damaged(f"`{METADATA}` is no table of texts")
    return metadata


def _laid_out(entries: dict[str, Any], begin: int, size: int) -> dict[str, Entry]:
    """The tensors in their order, which must fill the file from ``begin`` to its end."""
    tensors = {name: _entry(name, told, begin) for name, told in entries.items()}
    ordered = dict(sorted(tensors.items(), key=lambda each: (each[1].start, each[1].end)))
    at = begin
    for name, entry in ordered.items():
        if entry.start != at:
            raise Damaged(f"`{name}` begins at byte {entry.start:,}, not at {at:,}, where it must")
        at = entry.end
    if at != size:
        raise Damaged(f"its tensors end at byte {at:,}, the file at {size:,}")
    return ordered


def _entry(name: str, told: Any, begin: int) -> Entry:
    if not name.isprintable() or len(name) > MAX_NAME:
        raise Damaged("a tensor's name is not printable, or too long")
    if not isinstance(told, dict) or told.keys() != {"dtype", "shape", "data_offsets"}:
        raise Damaged(f"`{name}` is not told by dtype, shape and data_offsets")
    dtype, shape, offsets = told["dtype"], told["shape"], told["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise Damaged(f"`{name}` is of a dtype that nobody knows")
    if not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2:
        raise Damaged(f"shape and offsets of `{name}` are not whole numbers from 0")
    start, end = offsets
    if end - start != prod(shape) * ITEM_BYTES[dtype]:
        raise Damaged(f"`{name}` has another number of bytes than its shape takes")
    return Entry(dtype, tuple(shape), begin + start, begin + end)


def _are_counts(numbers: Any) -> bool:
    """``True`` is a whole number to Python, and none to others."""
    return (
        isinstance(numbers, list)
        and len(numbers) <= _MAX_DIMENSIONS
        and all(type(each) is int and 0 <= each <= _MAX_COUNT for each in numbers)
    )


def text(entries: Mapping[str, object]) -> bytes:
    """The header that says this, its length before it; what follows is aligned to eight bytes."""
    told = json.dumps(entries, separators=(",", ":")).encode()
    aligned = told.ljust(-(-len(told) // 8) * 8)
    return struct.pack("<Q", len(aligned)) + aligned


def shown(name: str) -> str:
    """As a sentence may repeat it, whoever wrote it."""
    return "".join(each if each.isprintable() else "?" for each in name[:100])


def order_metadata(path: Path) -> None:
    """Puts a file's metadata in alphabetical order, so that the same content is the same bytes.

    The library writes it as its hash table lies, another way in each process.
    """
    with path.open("r+b") as file:
        (length,) = struct.unpack("<Q", file.read(_LENGTH_BYTES))
        header = json.loads(file.read(length))
        header[METADATA] = dict(sorted(header[METADATA].items()))
        ordered = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(ordered) <= length, "the same entries take the same bytes"
        file.seek(_LENGTH_BYTES)
        file.write(ordered.ljust(length))
