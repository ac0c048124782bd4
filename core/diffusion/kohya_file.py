"""The same LoRA as kohya's scripts write it: what ComfyUI, A1111, Forge and InvokeAI read.

Modules go by their names in Stability's original code, with underscores for dots, and each has an
alpha of its own. diffusers' converter loses the alpha, so this is ours.
"""

import hashlib
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save, save_file
from torch import Tensor

from core.diffusion.lora_file import Pair
from core.files.atomic import replacing
from core.files.safetensors_header import order_metadata
from core.layouts import Layout
from core.loras.names import kohya_key

_A, _B, _ALPHA = ".lora_down.weight", ".lora_up.weight", ".alpha"


def file_name(layout: Layout) -> str:
    """Says which layout it is for: the keys of one fit another, and nobody would notice."""
    return f"lora_kohya_{_short(layout)}.safetensors"


def write(
    path: Path,
    pairs: Mapping[str, Pair],
    *,
    rank: int,
    alpha: float,
    layout: Layout,
    side: int,
    trigger: str | None = None,
) -> None:
    """The file whole or not at all.

    Args:
        path: of the file.
        pairs: by the module's path in diffusers' UNet, as they are.
        rank: of all pairs.
        alpha: likewise; written beside each.
        layout: that the modules are of.
        side: pixels a side that it was trained at.
        trigger: the word to use in prompts, for programs that show it.
    """
    tensors: dict[str, Tensor] = {}
    for module, pair in pairs.items():
        name = kohya_key(module)
        tensors[name + _A] = pair.a_RI.detach().cpu().contiguous()
        tensors[name + _B] = pair.b_OR.detach().cpu().contiguous()
        tensors[name + _ALPHA] = torch.tensor(alpha)
    digest = _content_hash(tensors)
    title = f"stillroom-{_short(layout)}" + (f"-{trigger}" if trigger else "")
    metadata = {
        "ss_v2": "False",
        "ss_base_model_version": "sdxl_base_v1-0",
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(alpha),
        "ss_network_args": "{}",
        "ss_output_name": title,
        "sshs_model_hash": digest,
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.title": title,
        "modelspec.resolution": f"{side}x{side}",
        "modelspec.hash_sha256": f"0x{digest}",
        "stillroom.layout": layout.id,
    }
    if trigger is not None:
        metadata["modelspec.trigger_phrase"] = trigger
    with replacing(path) as aside:
        save_file(tensors, aside, metadata=metadata)
        order_metadata(aside)


def _short(layout: Layout) -> str:
    return layout.id.replace("-", "")


def _content_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the file without its header, as A1111 computes it."""
    written = save(dict(tensors))
    (header_bytes,) = struct.unpack("<Q", written[:8])
    return hashlib.sha256(memoryview(written)[8 + header_bytes :]).hexdigest()
