"""The same LoRA as kohya's scripts write it: what ComfyUI, A1111, Forge and InvokeAI read.

Modules go by their names in Stability's original code, with underscores for dots, and each has an
alpha of its own. diffusers' converter loses the alpha, so this is ours.
"""

import hashlib
import re
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save, save_file
from torch import Tensor

from core.diffusion.lora_file import Pair
from core.errors import LayoutMismatch
from core.files.atomic import replacing
from core.files.safetensors_header import order_metadata
from core.layouts import SDXL, Layout

_PREFIX, _A, _B, _ALPHA = "lora_unet_", ".lora_down.weight", ".lora_up.weight", ".alpha"
_LEVEL = re.compile(r"(down|up)_blocks\.(\d)\.attentions\.(\d)\.(.+)")
_MIDDLE = re.compile(r"mid_block\.attentions\.0\.(.+)")
_LEVEL_BLOCKS = 3
"""Of a level: two ResNets with their transformers and a downsampler, or three and an upsampler."""


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
        name = key_of(module)
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


def is_one(path: Path) -> bool:
    """Whether a file has kohya's keys."""
    with safe_open(path, framework="pt") as file:
        return all(key.startswith("lora_") for key in file.keys())  # noqa: SIM118


def read(path: Path) -> dict[str, tuple[Pair, float]]:
    """Pairs in float32 on the CPU and their alphas, by module of diffusers' UNet.

    Raises:
        LayoutMismatch: a key is of another kind, or part of a module is missing; names it.
    """
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
    modules = {key_of(module): module for module in SDXL.linear_modules()}
    found: dict[str, tuple[Pair, float]] = {}
    for name in sorted({key.partition(".")[0] for key in tensors}):
        if name not in modules:
            raise LayoutMismatch(f"`{name}` is no linear layer of an SDXL UNet's transformers")
        pair = Pair(_part(tensors, name + _A), _part(tensors, name + _B))
        found[modules[name]] = (pair, _part(tensors, name + _ALPHA).item())
    return found


def key_of(module: str) -> str:
    """``down_blocks.1.attentions.0.proj_in`` is ``lora_unet_input_blocks_4_1_proj_in``."""
    if middle := _MIDDLE.fullmatch(module):
        original = f"middle_block.1.{middle[1]}"
    else:
        level = _LEVEL.fullmatch(module)
        assert level, f"{module} is in no transformer"
        side, number, attention, rest = level.groups()
        place = _LEVEL_BLOCKS * int(number) + int(attention)
        # the way down begins with a convolution
        blocks = f"input_blocks.{place + 1}" if side == "down" else f"output_blocks.{place}"
        original = f"{blocks}.1.{rest}"
    return _PREFIX + original.replace(".", "_")


def _part(tensors: Mapping[str, Tensor], key: str) -> Tensor:
    if key not in tensors:
        raise LayoutMismatch(f"the LoRA lacks `{key}`")
    return tensors[key]


def _short(layout: Layout) -> str:
    return layout.id.replace("-", "")


def _content_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the file without its header, as A1111 computes it."""
    written = save(dict(tensors))
    (header_bytes,) = struct.unpack("<Q", written[:8])
    return hashlib.sha256(memoryview(written)[8 + header_bytes :]).hexdigest()
