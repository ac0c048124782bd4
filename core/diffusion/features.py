"""What a UNet computes on its way: the outputs of its ResNets and transformers, by their places."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from diffusers import UNet2DConditionModel
from torch import Tensor, nn

_LAYER = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)")
_MIDDLE = "mid_block"
_PARTS = ("down", "mid", "up")


def places(unet: UNet2DConditionModel) -> tuple[str, ...]:
    """Paths of every ResNet and transformer on the way down and up, and of the whole middle, in the
    order data flows. For SSD-1B and Vega 26: 10 down, the middle, 15 up."""
    found = [name for name, _ in unet.named_modules() if name == _MIDDLE or _LAYER.fullmatch(name)]
    return tuple(sorted(found, key=_when))


@contextmanager
def recorded(unet: UNet2DConditionModel, wanted: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Inside, each pass of the UNet leaves there what these places gave, the last pass's alone.

    Leave the block before going backward: where activations are computed again, modules run twice.
    """
    features: dict[str, Tensor] = {}
    with ExitStack() as hooks:
        for place in wanted:
            hook = _keep(features, place)
            hooks.callback(unet.get_submodule(place).register_forward_hook(hook).remove)
        yield features


def _keep(features: dict[str, Tensor], place: str) -> Callable[..., None]:
    def keep(module: nn.Module, inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
        # a transformer wraps what it gives
        features[place] = output[0] if isinstance(output, tuple) else output

    return keep


def _when(place: str) -> tuple[int, int, int, bool]:
    """In a level, transformer i follows ResNet i."""
    layer = _LAYER.fullmatch(place)
    if layer is None:
        return _PARTS.index("mid"), 0, 0, False
    part, level, kind, number = layer.groups()
    return _PARTS.index(part), int(level), int(number), kind == "attentions"
