"""AdamW and Adafactor, which a flag on the device can keep from taking a step."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from transformers.optimization import Adafactor

from core.specs import TrainingSpec


def build(parameters: Sequence[nn.Parameter], spec: TrainingSpec) -> Optimizer:
    """The optimizer that a spec asks for, over one group.

    AdamW is Loshchilov and Hutter's, arXiv:1711.05101, as one kernel for all matrices. Adafactor is
    Shazeer and Stern's, arXiv:1804.04235, with a rate of ours in place of its own: transformers'
    (torch's class of that name takes the root of another second moment).
    """
    if spec.optimizer == "adamw":
        return AdamW(parameters, lr=spec.learning_rate, weight_decay=spec.weight_decay, fused=True)
    return Adafactor(  # type: ignore[no-untyped-call]
        parameters,
        lr=spec.learning_rate,
        weight_decay=spec.weight_decay,
        scale_parameter=False,
        relative_step=False,
    )


def step_unless(optimizer: Optimizer, skip: Tensor, rate: float) -> None:
    """A step at ``rate``, or none where ``skip`` is true; nobody waits for the device to know."""
    (group,) = optimizer.param_groups
    group["lr"] = rate
    if isinstance(optimizer, AdamW):
        # what GradScaler uses to skip a step on the device: the fused kernel reads it there
        setattr(optimizer, "found_inf", skip.float())  # noqa: B010 - no declared attribute
        optimizer.step()
    else:
        _step_adafactor(optimizer, group, skip, rate)
    optimizer.zero_grad(set_to_none=True)


@torch.no_grad()
def _step_adafactor(optimizer: Optimizer, group: dict[str, Any], skip: Tensor, rate: float) -> None:
    """Without gradients, and without decay, it leaves the weights as they are."""
    weights = [weight for weight in group["params"] if weight.grad is not None]
    for weight in weights:
        weight.grad = torch.where(skip, 0.0, weight.grad)
    # decay is ours to do: theirs takes no number that is still on the device
    decay, group["weight_decay"] = group["weight_decay"], 0.0
    torch._foreach_mul_(weights, torch.where(skip, 1.0, 1.0 - decay * rate))
    optimizer.step()
    group["weight_decay"] = decay
