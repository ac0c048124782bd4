"""LoRAs at generation: each row's stack as one pair a module, added by a hook.

The base's weights never change and nothing is loaded into a model; a LoRA that does not fit is
refused before a single hook is set. N counts rows, R is the rank, I and O a module's inputs and
outputs, L what stands between.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from core.diffusion.adapter import Updates
from core.diffusion.hooks import Hook, hooked
from core.diffusion.lora_file import Pair
from core.errors import LayoutMismatch


@dataclass(frozen=True)
class Change:
    """What a stack does to a module's answer y = W x + c:  y + B A x + gain (y - c).

    ``gain_O`` is None without DoRA (Liu et al., arXiv:2402.09353).
    """

    a_RI: Tensor
    b_RO: Tensor
    gain_O: Tensor | None = None


Stack = Mapping[nn.Linear, Change]
"""By the model's layer, on its device and in its precision."""


def bytes_of(stack: Stack) -> int:
    return sum(
        change.a_RI.nbytes
        + change.b_RO.nbytes
        + (0 if change.gain_O is None else change.gain_O.nbytes)
        for change in stack.values()
    )


@torch.no_grad()
def compose(stack: Sequence[tuple[Updates, float]], model: nn.Module) -> Stack:
    """The sum of updates times their weights, as one: ranks laid side by side.

    Raises:
        LayoutMismatch: the model lacks a module, or has it in another size; names it.
    """
    modules = sorted({module for updates, _ in stack for module in updates})
    parts = {
        module: [(updates[module], weight) for updates, weight in stack if module in updates]
        for module in modules
    }
    layers = {
        module: _layer(model, module, pair) for module in modules for pair, _ in parts[module]
    }
    return {layers[module]: _change(parts[module], layers[module]) for module in modules}


@contextmanager
def applied(stacks: Sequence[Stack], *, copies: int = 1) -> Iterator[None]:
    """Their model answers row n with ``stacks[n]`` inside the block, and as before after it.

    ``copies``: how often the rows stand one after another in what it is given, as guidance does.
    """
    if all(stack is stacks[0] for stack in stacks):
        stacks, copies = stacks[:1], 1
    layers = dict.fromkeys(layer for stack in stacks for layer in stack)
    hooks: dict[nn.Module, Hook] = {
        layer: _hook([stack.get(layer) for stack in stacks], copies) for layer in layers
    }
    with hooked(hooks):
        yield


def _change(parts: Sequence[tuple[Pair, float]], layer: nn.Linear) -> Change:
    like = layer.weight
    gains_O = [_dora_gain(pair, layer) for pair, _ in parts]
    b_RO = [
        pair.b_OR.T.to(like.device) * (weight if gain_O is None else weight * (1 + gain_O))
        for (pair, weight), gain_O in zip(parts, gains_O, strict=True)
    ]
    gain_O = sum(
        weight * gain_O
        for (_, weight), gain_O in zip(parts, gains_O, strict=True)
        if gain_O is not None
    )
    return Change(
        a_RI=torch.cat([pair.a_RI for pair, _ in parts]).to(like.device, like.dtype),
        b_RO=torch.cat(b_RO).to(like.dtype),
        gain_O=gain_O.to(like.dtype) if isinstance(gain_O, Tensor) else None,
    )


def _dora_gain(pair: Pair, layer: nn.Linear) -> Tensor | None:
    """m / |W + B A| - 1 a row, float32; None for a LoRA without magnitudes.

    As it was trained, whatever its weight: that goes the way from W to what was trained, as
    ComfyUI does. Within the norm, as in peft, a weight of 0 would leave m / |W| of W.
    """
    if pair.magnitude_O is None:
        return None
    base_OI = layer.weight.float()
    a_RI, b_OR = pair.a_RI.to(base_OI.device), pair.b_OR.to(base_OI.device)
    changed_OI = torch.addmm(base_OI, b_OR, a_RI)
    gain_O: Tensor = pair.magnitude_O.to(base_OI.device) / changed_OI.norm(dim=1) - 1
    return gain_O


def _hook(changes: Sequence[Change | None], copies: int) -> Hook:
    """For G groups of equally many rows, each with its change: padded with zeros to the largest
    rank, all zeros for a group that has none. M are the rows and positions of a group.

    A x is computed as (R, M): so the many positions lie side by side, which is several times as
    fast on a CPU as the few ranks are.
    """
    a_GRI, b_GRO = _padded(changes)
    if copies > 1:
        a_GRI, b_GRO = a_GRI.repeat(copies, 1, 1), b_GRO.repeat(copies, 1, 1)
    gain_G1O = _gains(changes, b_GRO)

    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x_GMI = inputs[0].reshape(len(a_GRI), -1, a_GRI.shape[2])
        y_GMO = output.view(len(b_GRO), -1, b_GRO.shape[2])
        gained = None if gain_G1O is None else gain_G1O * _without_bias(module, y_GMO)
        inner_GRM = torch.bmm(a_GRI, x_GMI.mT)
        y_GMO.baddbmm_(inner_GRM.mT, b_GRO)  # nobody else has this answer
        if gained is not None:
            y_GMO += gained
        return output

    return add


def _padded(changes: Sequence[Change | None]) -> tuple[Tensor, Tensor]:
    """``a_GRI`` and ``b_GRO``."""
    if len(changes) == 1 and changes[0]:
        return changes[0].a_RI.unsqueeze(0), changes[0].b_RO.unsqueeze(0)
    like = next(change for change in changes if change)
    none = Change(like.a_RI[:0], like.b_RO[:0])
    known = [change or none for change in changes]
    return (
        pad_sequence([change.a_RI for change in known], batch_first=True),
        pad_sequence([change.b_RO for change in known], batch_first=True),
    )


def _gains(changes: Sequence[Change | None], b_GRO: Tensor) -> Tensor | None:
    """For each of ``b_GRO``'s groups; None where no change has any."""
    gains_O = [change.gain_O if change else None for change in changes]
    if all(gain_O is None for gain_O in gains_O):
        return None
    none_O = b_GRO.new_zeros(b_GRO.shape[2])
    gain_GO = torch.stack([none_O if gain_O is None else gain_O for gain_O in gains_O])
    return gain_GO.repeat(len(b_GRO) // len(changes), 1).unsqueeze(1)


def _without_bias(module: nn.Module, output: Tensor) -> Tensor:
    assert isinstance(module, nn.Linear), "nothing else is changed"
    return output if module.bias is None else output - module.bias


def _layer(model: nn.Module, module: str, update: Pair) -> nn.Linear:
    try:
        layer = model.get_submodule(module)
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
