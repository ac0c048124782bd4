"""LoRAs at generation: stacked into one pair a module, added by a hook.

The base's weights never change and nothing is loaded into the UNet; a LoRA that does not fit is
refused before a single hook is set. R is the rank, I and O a module's inputs and outputs.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional as F

from core.diffusion.adapter import Adapter
from core.diffusion.hooks import Hook, hooked
from core.diffusion.lora_file import Pair
from core.errors import LayoutMismatch


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
    hooks: dict[nn.Module, Hook] = {}
    for module, update in adapter.items():
        layer = _layer(unet, module, update)
        hooks[layer] = _hook(update, layer.weight)
    with hooked(hooks):
        yield


def _hook(update: Pair, weight: Tensor) -> Hook:
    a_RI = update.a_RI.to(weight.device, weight.dtype)
    b_OR = update.b_OR.to(weight.device, weight.dtype)

    def add_update(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + F.linear(F.linear(inputs[0], a_RI), b_OR)

    return add_update


def _layer(unet: UNet2DConditionModel, module: str, update: Pair) -> nn.Linear:
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


def _concatenated(parts: Sequence[tuple[Pair, float]]) -> Pair:
    return Pair(
        a_RI=torch.cat([part.a_RI for part, _ in parts]),
        b_OR=torch.cat([part.b_OR * weight for part, weight in parts], dim=1),
    )
