"""A LoRA as what it does: one update a module, whichever dialect its file is written in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from core.diffusion.lora_file import Pair
from core.loras.names import Model, Place
from core.loras.pairs import Keys, pairs_of
from core.loras.scaling import Scaling

Updates = Mapping[str, Pair]
"""By a module's path in a model, y + (x A^T) B^T; alpha / rank and weights are in B."""


@dataclass(frozen=True)
class Adapter:
    """What a LoRA does to each of a base's models."""

    unet: Updates
    text_encoder: Updates = field(default_factory=dict)
    text_encoder_2: Updates = field(default_factory=dict)


def read(path: Path) -> Adapter:
    """float32 on the CPU, from every dialect of ``core.loras.names``.

    Raises:
        Unprocessable, LayoutMismatch: a key is of another kind, or half of a pair is missing; names
            it.
    """
    found: dict[Model, dict[str, Pair]] = {"unet": {}, "text_encoder": {}, "text_encoder_2": {}}
    with safe_open(path, framework="pt") as file:
        scaling = Scaling.of(file.metadata() or {})
        for place, keys in sorted(pairs_of(file.keys()).items()):
            found[place.model][place.module] = _pair(file, place, keys, scaling)
    return Adapter(**found)


def _pair(file: Any, place: Place, keys: Keys, scaling: Scaling) -> Pair:
    def tensor(key: str) -> Tensor:
        told: Tensor = file.get_tensor(key)
        return told.float()

    a_RI, b_OR = _matrix(tensor(keys.a)), _matrix(tensor(keys.b))
    own = tensor(keys.alpha).item() if keys.alpha else None
    return Pair(
        a_RI,
        b_OR * scaling.scale(place, own=own, rank=len(a_RI)),
        tensor(keys.magnitude).flatten() if keys.magnitude else None,
    )


def _matrix(weight: Tensor) -> Tensor:
    """A linear layer's may come as a convolution of one pixel."""
    return weight.reshape(weight.shape[:2])
