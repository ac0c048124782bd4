"""Pictures at timesteps, with noise that is the same in every run: what measuring looks at.

Of few pictures, those that were learnt. Of 20 or more, a share that was kept out of the lesson,
which tells learning from learning by heart.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from core.specs import count_held_out
from core.training import draws
from core.training.batches import Batch, Batches
from core.training.lesson import Cell, Lesson

TIMESTEPS = (100, 300, 500, 700, 900)
"""The middle of each fifth of the process."""
MOST_PICTURES = 20
"""Enough to compare by."""
SEED = 0
"""Not the run's, so that runs compare."""


def held_out(count: int) -> list[int]:
    """Which of so many pictures are not learnt, the same ones in every run."""
    chosen_H = draws.shuffle(SEED, "held out", 0, count)[: count_held_out(count)]
    return sorted(chosen_H.tolist())


@dataclass(frozen=True)
class Grid:
    """``kept_out``: pictures of the lesson's shelf that are not learnt; none: those that are."""

    lesson: Lesson
    batches: Batches
    kept_out: Sequence[int]

    @property
    def pictures(self) -> list[int]:
        return list(self.kept_out or self.lesson.pictures)[:MOST_PICTURES]

    def __len__(self) -> int:
        return len(self.pictures) * len(TIMESTEPS)

    def __iter__(self) -> Iterator[Batch]:
        """Cells one at a time, so that they need no more memory than a step does: the first view of
        each picture, at its mean, with each of ``TIMESTEPS`` in turn."""
        lesson = self.lesson
        for number in range(len(self)):
            picture, column = divmod(number, len(TIMESTEPS))
            place = self.pictures[picture]
            shown = lesson.show([Cell(place, 0, lesson.words_of[place])])
            yield self.batches.noised(
                shown,
                shown.moments.mean_BCHW,
                draws.normal(SEED, "grid", [number], lesson.latent_shape),
                torch.tensor([TIMESTEPS[column]]),
            )
