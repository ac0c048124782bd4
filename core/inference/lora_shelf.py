"""Parsed LoRAs in host memory, by the hash of their file."""

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from core.diffusion import adapter
from core.diffusion.adapter import Adapter
from core.inference.memo import Memo

BYTES = 4 * 1024**3
"""Some forty LoRAs of rank 16 for SSD-1B, in float32."""


class LoraShelf:
    """All engines take from it."""

    def __init__(self, max_bytes: int = BYTES) -> None:
        self._adapters: Memo[str, Adapter] = Memo(max_bytes, _bytes_of)

    def take(self, sha256: str, path: Path) -> Adapter:
        """The LoRA of that hash, read from ``path`` if it is not here."""
        return self._adapters.take(sha256, lambda: adapter.read(path))


def _bytes_of(one: Adapter) -> int:
    return sum(tensor.nbytes for tensor in _tensors(one))


def _tensors(one: Adapter) -> Iterator[Tensor]:
    for updates in (one.unet, one.text_encoder, one.text_encoder_2):
        for pair in updates.values():
            yield from (pair.a_RI, pair.b_OR)
            if pair.magnitude_O is not None:
                yield pair.magnitude_O
