"""How well a LoRA says what it should: ``heldout_loss``, or of few pictures ``fixed_grid_loss``."""

from collections.abc import Generator
from dataclasses import dataclass

import torch
from torch import Tensor

from core.diffusion.losses import mse_per_sample
from core.training.batches import Batch
from core.training.course import Course
from core.training.grid import Grid
from core.training.report import StepReport


@dataclass(frozen=True)
class Measured:
    """Mean squared errors of the base and of the LoRA on it; ``drift`` is how far the two are apart
    on the class prompt, None where there is none."""

    name: str
    base: float
    lora: float
    drift: float | None


@torch.no_grad()
def measure(
    course: Course, grid: Grid, report: StepReport
) -> Generator[StepReport, None, Measured]:
    """Yields ``report`` now and then; the LoRA must be attached."""
    sums = torch.zeros(3)
    with course.lora.evaluating():
        for batch in grid:
            sums += _errors(course, batch)
            yield report
    base, lora, drift = (sums / len(grid)).tolist()
    return Measured(
        name="heldout_loss" if grid.kept_out else "fixed_grid_loss",
        base=base,
        lora=lora,
        drift=None if course.class_words is None else drift,
    )


def _errors(course: Course, batch: Batch) -> Tensor:
    """The base's error, the LoRA's, and the two's difference on the class prompt, shape (3,)."""
    unet = course.unet
    with course.lora.silent():
        base = mse_per_sample(batch.asked_of(unet), batch.target_BCHW)
    lora = mse_per_sample(batch.asked_of(unet), batch.target_BCHW)
    if course.class_words is None:
        return torch.cat([base, lora, torch.zeros_like(base)]).cpu()
    asked = course.under_class_prompt(batch)
    with course.lora.silent():
        alone_BCHW = asked.asked_of(unet)
    drift = mse_per_sample(asked.asked_of(unet), alone_BCHW)
    return torch.cat([base, lora, drift]).cpu()
