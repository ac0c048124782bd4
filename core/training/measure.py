"""How well a UNet says what it should, on noise that is the same in every run.

Of few pictures, those that were learnt: ``fixed_grid_loss``. Of 20 or more, a share that was kept
out of the lesson: ``heldout_loss``, which tells learning from learning by heart.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from core.diffusion.losses import mse_per_sample
from core.specs import count_held_out
from core.training import draws
from core.training.course import Batch, Course
from core.training.lesson import Cell
from core.training.report import StepReport

TIMESTEPS = (100, 300, 500, 700, 900)
"""The middle of each fifth of the process."""
MOST_PICTURES = 20
"""Enough to compare by."""
SEED = 0
"""Not the run's, so that runs compare."""


@dataclass(frozen=True)
class Measured:
    """Mean squared errors of the base and of the LoRA on it; ``drift`` is how far the two are apart
    on the class prompt, None where there is none."""

    name: str
    base: float
    lora: float
    drift: float | None


def held_out(count: int) -> list[int]:
    """Which of so many pictures are not learnt, the same ones in every run."""
    chosen_H = draws.shuffle(SEED, "held out", 0, count)[: count_held_out(count)]
    return sorted(chosen_H.tolist())


@torch.no_grad()
def measure(
    course: Course, kept_out: Sequence[int], report: StepReport
) -> Generator[StepReport, None, Measured]:
    """Yields ``report`` now and then; the LoRA must be attached.

    The first view of each picture, at its mean, with each of ``TIMESTEPS``. One at a time, so that
    it needs no more memory than a step does.
    """
    pictures = list(kept_out or course.instance.pictures)[:MOST_PICTURES]
    sums, cells = torch.zeros(3), len(pictures) * len(TIMESTEPS)
    with course.lora.evaluating():
        for number in range(cells):
            picture, column = divmod(number, len(TIMESTEPS))
            sums += _errors(course, _cell(course, number, pictures[picture], TIMESTEPS[column]))
            yield report
    base, lora, drift = (sums / cells).tolist()
    return Measured(
        name="heldout_loss" if kept_out else "fixed_grid_loss",
        base=base,
        lora=lora,
        drift=None if course.class_words is None else drift,
    )


def _cell(course: Course, number: int, picture: int, timestep: int) -> Batch:
    lesson = course.instance
    shown = lesson.show([Cell(picture, 0, lesson.words_of[picture])])
    noise_1CHW = draws.normal(SEED, "grid", [number], lesson.latent_shape)
    return course.batch(
        shown,
        shown.moments.mean_BCHW,
        course.on_device(noise_1CHW),
        course.on_device(torch.tensor([timestep])),
    )


def _errors(course: Course, batch: Batch) -> Tensor:
    """The base's error, the LoRA's, and the two's difference on the class prompt, shape (3,)."""
    with course.lora.silent():
        base = mse_per_sample(course.predict(batch), batch.target_BCHW)
    lora = mse_per_sample(course.predict(batch), batch.target_BCHW)
    if course.class_words is None:
        return torch.cat([base, lora, torch.zeros_like(base)]).cpu()
    asked = course.under_class_prompt(batch)
    with course.lora.silent():
        alone_BCHW = course.predict(asked)
    drift = mse_per_sample(course.predict(asked), alone_BCHW)
    return torch.cat([base, lora, drift]).cpu()
