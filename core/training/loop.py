"""The one training loop: accumulate, cut, step; whatever is trained and whatever the loss.

Nothing in a step waits for the device. Loss and a flag for values that are not finite stay there
and are read every few steps; from the first bad step on the flag masks the optimizer's updates, so
that when it is read the weights are those of the last good step.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from core.specs import TrainingSpec
from core.training import optimizer
from core.training.loss import Loss
from core.training.trainee import Trainee

STEPS_A_READ = 10
"""Steps between two looks at the device's loss."""

MicroLoss = Callable[[int, int], Loss]
"""(step, micro-step) to the mean loss of that micro-batch."""


@dataclass(frozen=True)
class Progress:
    """After a step. ``loss`` and its ``terms`` are means over the steps since they were last read,
    None and nothing in between."""

    step: int  # 1 after the first
    loss: float | None
    terms: dict[str, float]
    learning_rate: float  # that this step used
    seconds_per_step: float  # of the steps alone, mean so far


def learning_rate(spec: TrainingSpec, step: int, steps: int) -> float:
    """The rate of step ``step`` (0-based) of ``steps``.

    Rises from rate / warm-up to the rate over the warm-up; then constant, or down to 0, which the
    step after the last would have: as a line or as half a cosine.
    """
    if step < spec.warmup_steps:
        return spec.learning_rate * (step + 1) / spec.warmup_steps
    if spec.schedule == "constant":
        return spec.learning_rate
    done = (step - spec.warmup_steps) / max(1, steps - spec.warmup_steps)
    factor = 1 - done if spec.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
    return spec.learning_rate * factor


def run(
    trainee: Trainee, micro_loss: MicroLoss, spec: TrainingSpec, steps: int
) -> Iterator[Progress]:
    """Takes the steps that the trainee has not taken yet, and yields after each.

    Args:
        trainee: what else the loss depends on must not ask for gradients.
        micro_loss: called ``spec.accumulation`` times a step.
        spec: rate, schedule, cut of the gradient norm, accumulation.
        steps: optimizer steps, those taken before included.

    Raises:
        NonFiniteLoss: names the step; the weights are as after the step before it.
    """
    watch, parameters = trainee.watch, trainee.parameters
    first, seconds = trainee.step, 0.0
    for step in range(first, steps):
        began = time.perf_counter()
        rate = learning_rate(spec, step, steps)
        told = _accumulate(trainee.scaler, micro_loss, step, spec.accumulation)
        trainee.scaler.unscale_(trainee.optimizer)
        norm = nn.utils.clip_grad_norm_(parameters, spec.max_grad_norm)
        # with a scaler, a gradient that overflows costs its step and lowers the scale, no more
        watch.see(step, told, told[0] if trainee.scaler.is_enabled() else norm)
        optimizer.step_unless(trainee.optimizer, watch.bad | ~norm.isfinite(), rate)
        trainee.scaler.update()
        if trainee.average:
            trainee.average.update(step)
        trainee.step = step + 1
        due = (step + 1) % STEPS_A_READ == 0 or step + 1 == steps
        loss, terms = watch.read() if due else (None, {})
        seconds += time.perf_counter() - began
        yield Progress(step + 1, loss, terms, rate, seconds / (step + 1 - first))


def _accumulate(scaler: GradScaler, micro_loss: MicroLoss, step: int, accumulation: int) -> Tensor:
    """Backward through each micro-batch; what the step told of its loss, on the device."""
    told = []
    for micro in range(accumulation):
        loss = micro_loss(step, micro)
        torch.autograd.backward(scaler.scale(loss.total / accumulation))
        told.append(loss.told() / accumulation)
    return torch.stack(told).sum(dim=0)
