"""The one training loop: accumulate, cut, step; whatever is trained and whatever the loss.

Nothing in a step waits for the device. Loss and a flag for values that are not finite stay there
and are read every few steps; from the first bad step on the flag masks the optimizer's updates, so
that when it is read the weights are those of the last good step.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from core.errors import NonFiniteLoss
from core.specs import FineTuneSpec

STEPS_A_READ = 10
"""Steps between two looks at the device's loss."""

MicroLoss = Callable[[int, int], Tensor]
"""(step, micro-step) to the mean loss of that micro-batch, a scalar with a graph."""


@dataclass(frozen=True)
class Progress:
    """After a step. ``loss`` is the mean over the steps since it was last read, None in between."""

    step: int  # 1 after the first
    loss: float | None
    learning_rate: float  # that this step used
    seconds_per_step: float  # of the steps alone, mean so far


def learning_rate(spec: FineTuneSpec, step: int, steps: int) -> float:
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


def adamw(parameters: Sequence[nn.Parameter], spec: FineTuneSpec) -> torch.optim.AdamW:
    """Loshchilov and Hutter, arXiv:1711.05101; one kernel for all matrices."""
    return torch.optim.AdamW(
        parameters, lr=spec.learning_rate, weight_decay=spec.weight_decay, fused=True
    )


def run(
    parameters: Sequence[nn.Parameter],
    micro_loss: MicroLoss,
    spec: FineTuneSpec,
    steps: int,
) -> Iterator[Progress]:
    """Trains ``parameters`` for ``steps`` steps and yields after each.

    Args:
        parameters: float32 leaves; what else the loss depends on must not ask for gradients.
        micro_loss: called ``spec.accumulation`` times a step.
        spec: rate, schedule, decay, cut of the gradient norm, accumulation.
        steps: optimizer steps.

    Raises:
        NonFiniteLoss: names the step; the parameters are as after the step before it.
    """
    device = parameters[0].device
    optimizer = adamw(parameters, spec)
    watch = _Watch(device)
    seconds = 0.0
    for step in range(steps):
        began = time.perf_counter()
        rate = learning_rate(spec, step, steps)
        loss = _accumulate(micro_loss, step, spec.accumulation)
        norm = nn.utils.clip_grad_norm_(parameters, spec.max_grad_norm)
        watch.see(step, loss, norm)
        _step_unless(optimizer, watch.bad, rate)
        due = (step + 1) % STEPS_A_READ == 0 or step + 1 == steps
        mean_loss = watch.read() if due else None
        seconds += time.perf_counter() - began
        yield Progress(step + 1, mean_loss, rate, seconds / (step + 1))


def _accumulate(micro_loss: MicroLoss, step: int, accumulation: int) -> Tensor:
    """Backward through each micro-batch; the mean loss of the step, on the device."""
    losses = []
    for micro in range(accumulation):
        loss = micro_loss(step, micro) / accumulation
        torch.autograd.backward(loss)
        losses.append(loss.detach())
    return torch.stack(losses).sum()


def _step_unless(optimizer: torch.optim.AdamW, bad: Tensor, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
    # What GradScaler uses to skip a step on the device: the fused kernel reads it there.
    setattr(optimizer, "found_inf", bad.float())  # noqa: B010 - no declared attribute
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


class _Watch:
    """Loss and health of the run, kept on the device between reads."""

    def __init__(self, device: torch.device) -> None:
        self._total = torch.zeros((), device=device)
        self._first_bad = torch.tensor(-1, device=device)
        self._seen = 0

    @property
    def bad(self) -> Tensor:
        """True from the first bad step on, a scalar."""
        return self._first_bad >= 0

    def see(self, step: int, loss: Tensor, norm: Tensor) -> None:
        now_bad = ~(loss.isfinite() & norm.isfinite()) & ~self.bad
        self._first_bad = torch.where(now_bad, step, self._first_bad)
        self._total += loss
        self._seen += 1

    def read(self) -> float:
        """The mean loss since the last read; the one place that waits for the device."""
        mean, first_bad = (self._total / self._seen).item(), int(self._first_bad.item())
        if first_bad >= 0:
            raise NonFiniteLoss(
                f"loss or gradient is not finite at step {first_bad + 1}: "
                "lower `learning_rate`, or raise `warmup_steps`"
            )
        self._total.zero_()
        self._seen = 0
        return mean
