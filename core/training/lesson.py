"""What a run teaches: views of pictures, each with words."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from core.diffusion.latents import Moments
from core.training import draws
from core.training.captions import NOTHING
from core.training.shelf import Shelf


class Cell(NamedTuple):
    """One thing to show: a picture's view, and which words go with it, by their numbers."""

    picture: int
    view: int
    words: int


@dataclass(frozen=True)
class Shown:
    """B cells on the device."""

    moments: Moments
    time_ids_B6: Tensor
    text_BLD: Tensor
    pooled_BP: Tensor


@dataclass(frozen=True)
class Lesson:
    """``pictures`` are numbers on the shelf of views, which holds ``mean`` and ``std`` (V, C, H, W)
    and ``time_ids`` (V, 6); ``words_of`` gives each a number on the shelf of words, which holds
    ``text`` (L, D) and ``pooled`` (P,). ``name`` keeps the random numbers of a run's lessons apart.
    """

    views: Shelf
    words: Shelf
    pictures: Sequence[int]
    words_of: Sequence[int]
    views_per_picture: int = 1
    dropout: float = 0.0
    name: str = ""

    @cached_property
    def latent_shape(self) -> tuple[int, ...]:
        """(C, H, W)."""
        return tuple(self.views[self.pictures[0]]["mean"].shape[1:])

    def purpose(self, what: str) -> str:
        """What ``draws`` is to call a draw of this lesson."""
        return f"{self.name} {what}".strip()

    def cells(self, seed: int, ordinals: Sequence[int]) -> list[Cell]:
        """What the samples of these ordinals show."""
        return [self._cell(seed, ordinal) for ordinal in ordinals]

    def show(self, cells: Sequence[Cell]) -> Shown:
        views = [self.views[cell.picture] for cell in cells]
        words = [self.words[cell.words] for cell in cells]

        def seen(name: str) -> Tensor:
            return torch.stack(
                [row[name][cell.view] for row, cell in zip(views, cells, strict=True)]
            )

        return Shown(
            moments=Moments(seen("mean"), seen("std")),
            time_ids_B6=seen("time_ids"),
            text_BLD=torch.stack([row["text"] for row in words]),
            pooled_BP=torch.stack([row["pooled"] for row in words]),
        )

    def _cell(self, seed: int, ordinal: int) -> Cell:
        place = draws.example(seed, self.purpose("order"), ordinal, len(self.pictures))
        picture = self.pictures[place]
        view = draws.choice(seed, self.purpose("view"), ordinal, self.views_per_picture)
        words = self.words_of[picture]
        if self.dropout and draws.share(seed, self.purpose("dropout"), ordinal) < self.dropout:
            words = NOTHING
        return Cell(picture, view, words)
