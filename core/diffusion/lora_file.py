"""The file that a LoRA is: what ``load_lora_weights`` of diffusers reads.

peft's keys under ``unet.``, and rank and alpha in ``lora_adapter_metadata``: without it readers
take alpha for the rank. Shapes: A is (rank, in), B (out, rank).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from core.files.atomic import replacing
from core.files.safetensors_header import order_metadata
from core.loras.scaling import METADATA

FILE_NAME = "pytorch_lora_weights.safetensors"
"""What ``load_lora_weights`` looks for in a folder."""

_PREFIX, _A, _B = "unet.", ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True)
class Pair:
    """One module's two matrices; with DoRA also the length of each row of the changed weight.
    Liu et al., arXiv:2402.09353."""

    a_RI: Tensor
    b_OR: Tensor
    magnitude_O: Tensor | None = None


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
    adapter = {"unet.r": rank, "unet.lora_alpha": alpha, "unet.target_modules": list(targets)}
    metadata = {"format": "pt", METADATA: json.dumps(adapter, sort_keys=True)}
    if trigger is not None:
        metadata["modelspec.trigger_phrase"] = trigger
    with replacing(path) as aside:
        save_file(tensors, aside, metadata=metadata)
        order_metadata(aside)
