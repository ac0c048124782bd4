"""A LoRA as what it does: one update a module, whichever file it came in."""

from collections.abc import Mapping
from pathlib import Path

from core.diffusion import kohya_file, lora_file
from core.diffusion.lora_file import Pair

Adapter = Mapping[str, Pair]
"""A module's path in the UNet to its update, y + (x A^T) B^T; alpha / rank and weights are in B."""


def read(path: Path) -> Adapter:
    """float32 on the CPU, from either of our formats. Where a file tells no alpha, it is the rank,
    as diffusers takes it.

    Raises:
        LayoutMismatch: a key is of another kind, or half of a pair is missing; names it.
    """
    if kohya_file.is_one(path):
        return {
            module: Pair(pair.a_RI, pair.b_OR * (alpha / len(pair.a_RI)))
            for module, (pair, alpha) in kohya_file.read(path).items()
        }
    pairs, alpha = lora_file.read(path)
    return {
        module: Pair(pair.a_RI, pair.b_OR * _scale(alpha, rank=len(pair.a_RI)))
        for module, pair in pairs.items()
    }


def _scale(alpha: float | None, *, rank: int) -> float:
    return 1.0 if alpha is None else alpha / rank
