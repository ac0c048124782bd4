"""The file that a LoRA is: what ``load_lora_weights`` of diffusers reads.

peft's keys under ``unet.``, and rank and alpha in ``lora_adapter_metadata``: without it readers
take alpha for the rank. Shapes: A is (rank, in), B (out, rank).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from core.errors import LayoutMismatch
from core.files.atomic import replacing
from core.files.safetensors_header import order_metadata

FILE_NAME = "pytorch_lora_weights.safetensors"
"""What ``load_lora_weights`` looks for in a folder."""

_PREFIX, _A, _B = "unet.", ".lora_A.weight", ".lora_B.weight"
_METADATA, _ALPHA = "lora_adapter_metadata", "unet.lora_alpha"


@dataclass(frozen=True)
class Pair:
    """One module's two matrices."""

    a_RI: Tensor
    b_OR: Tensor


def write(
    path: Path,
    pairs: Mapping[str, Pair],
    *,
    rank: int,
    alpha: float,
    targets: Sequence[str],
    trigger: str | None = None,
) -> None:
    """The file whole or not at all.

    Args:
        path: of the file.
        pairs: by the module's path in the UNet, as they are.
        rank: of all pairs.
        alpha: likewise.
        targets: what the modules' names end with.
        trigger: the word to use in prompts, for programs that show it.
    """
    tensors = {}
    for module, pair in pairs.items():
        tensors[f"{_PREFIX}{module}{_A}"] = pair.a_RI.detach().cpu().contiguous()
        tensors[f"{_PREFIX}{module}{_B}"] = pair.b_OR.detach().cpu().contiguous()
    adapter = {"unet.r": rank, _ALPHA: alpha, "unet.target_modules": list(targets)}
    metadata = {"format": "pt", _METADATA: json.dumps(adapter, sort_keys=True)}
    if trigger is not None:
        metadata["modelspec.trigger_phrase"] = trigger
    with replacing(path) as aside:
        save_file(tensors, aside, metadata=metadata)
        order_metadata(aside)


def read(path: Path) -> tuple[dict[str, Pair], float | None]:
    """Pairs in float32 on the CPU by module, and alpha if the file tells it.

    Raises:
        LayoutMismatch: a key is of another kind, or half of a pair is missing; names it.
    """
    with safe_open(path, framework="pt") as file:
        metadata = json.loads((file.metadata() or {}).get(_METADATA, "{}"))
        tensors = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
    pairs = {
        module: Pair(_half(tensors, module, _A), _half(tensors, module, _B))
        for module in sorted({_module_of(key) for key in tensors})
    }
    return pairs, metadata.get(_ALPHA)


def _module_of(key: str) -> str:
    for suffix in (_A, _B):
        if key.startswith(_PREFIX) and key.endswith(suffix):
            return key.removeprefix(_PREFIX).removesuffix(suffix)
    raise LayoutMismatch(f"`{key}` is not a UNet LoRA's key in peft's format")


def _half(tensors: Mapping[str, Tensor], module: str, suffix: str) -> Tensor:
    key = f"{_PREFIX}{module}{suffix}"
    if key not in tensors:
        raise LayoutMismatch(f"the LoRA lacks `{key}`")
    return tensors[key]
