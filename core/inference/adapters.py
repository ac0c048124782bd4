"""LoRAs at generation: read from their files, stacked into one pair a module, added by a hook.

The base's weights never change and nothing is loaded into the UNet; a LoRA that does not fit is
refused before a single hook is set. R is the rank, I and O a module's inputs and outputs.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from core.errors import LayoutMismatch

_PREFIX, _A, _B = "unet.", ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True)
class LowRank:
    """One module's update, y + (x A^T) B^T; alpha / rank and weights are folded into B."""

    a_RI: Tensor
    b_OR: Tensor


Adapter = Mapping[str, LowRank]
"""A module's path in the UNet to its update."""


def read(path: Path) -> Adapter:
    """A LoRA file with peft's keys under ``unet.``, as ``core.diffusion.lora.save`` writes it.

    float32 on the CPU. Where the file tells no alpha, it is the rank, as diffusers takes it.

    Raises:
        LayoutMismatch: a key is of another kind, or half of a pair is missing; names it.
    """
    with safe_open(path, framework="pt") as file:
        metadata = json.loads((file.metadata() or {}).get("lora_adapter_metadata", "{}"))
        tensors = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
    modules = sorted({_module_of(key) for key in tensors})
    adapter = {}
    for module in modules:
        a_RI = _half(tensors, module, _A)
        scale = metadata.get("unet.lora_alpha", len(a_RI)) / len(a_RI)
        adapter[module] = LowRank(a_RI, _half(tensors, module, _B) * scale)
    return adapter


def compose(stack: Sequence[tuple[Adapter, float]]) -> Adapter:
    """The sum of adapters times their weights, as one: ranks laid side by side."""
    modules = sorted({module for adapter, _ in stack for module in adapter})
    return {
        module: _concatenated(
            [(adapter[module], weight) for adapter, weight in stack if module in adapter]
        )
        for module in modules
    }


@contextmanager
def applied(adapter: Adapter, unet: UNet2DConditionModel) -> Iterator[None]:
    """The UNet answers with the adapter inside the block, and as before after it.

    Raises:
        LayoutMismatch: the UNet lacks a module, or has it in another size; names it.
    """
    layers = {module: _layer(unet, module, update) for module, update in adapter.items()}
    handles: list[RemovableHandle] = []
    try:
        for module, layer in layers.items():
            handles.append(layer.register_forward_hook(_hook(adapter[module], layer.weight)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(update: LowRank, weight: Tensor) -> Callable[..., Tensor]:
    a_RI = update.a_RI.to(weight.device, weight.dtype)
    b_OR = update.b_OR.to(weight.device, weight.dtype)

    def add_update(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        return output + F.linear(F.linear(inputs[0], a_RI), b_OR)

    return add_update


def _layer(unet: UNet2DConditionModel, module: str, update: LowRank) -> nn.Linear:
    try:
        layer = unet.get_submodule(module)
    except AttributeError as missing:
        raise LayoutMismatch(
            f"the LoRA changes `{module}`, which this base does not have: "
            "it was trained on a base of another layout"
        ) from missing
    wanted = (update.b_OR.shape[0], update.a_RI.shape[1])
    if not isinstance(layer, nn.Linear) or tuple(layer.weight.shape) != wanted:
        has = tuple(layer.weight.shape) if isinstance(layer, nn.Linear) else type(layer).__name__
        raise LayoutMismatch(
            f"the LoRA changes `{module}` of size {wanted}; in this base it is {has}"
        )
    return layer


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


def _concatenated(parts: Sequence[tuple[LowRank, float]]) -> LowRank:
    return LowRank(
        a_RI=torch.cat([part.a_RI for part, _ in parts]),
        b_OR=torch.cat([part.b_OR * weight for part, weight in parts], dim=1),
    )
