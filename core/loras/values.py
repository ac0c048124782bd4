"""The numbers of a LoRA, piece by piece: all finite, and some of them read."""

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from core.files.safetensors_header import Entry
from core.files.safetensors_values import are_finite
from core.loras import refusals

_CHUNK_BYTES = 4 * 1024**2
_VIEWS = {"F16": "<f2", "F32": "<f4"}
"""numpy has no bfloat16; its bits are the upper half of a float32's."""


def require_finite(file: BinaryIO, key: str, entry: Entry) -> None:
    """Raises Unprocessable where a value is infinite or not a number."""
    if not all(are_finite(chunk, entry.dtype) for chunk in _chunks(file, entry)):
        raise refusals.not_finite(key)


def scalar(file: BinaryIO, entry: Entry) -> float:
    """The value of a tensor that has one, and is finite."""
    (number,) = _chunks(file, entry)
    if entry.dtype == "BF16":
        return float(np.frombuffer(b"\0\0" + number, "<f4")[0])
    return float(np.frombuffer(number, _VIEWS[entry.dtype])[0])


def _chunks(file: BinaryIO, entry: Entry) -> Iterator[bytes]:
    for at in range(entry.start, entry.end, _CHUNK_BYTES):
        file.seek(at)
        yield file.read(min(_CHUNK_BYTES, entry.end - at))
