"""What a run teaches: views of pictures with the one prompt that they are learnt with."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from core.diffusion.conditioning import Conditioning
from core.diffusion.latents import Moments
from core.training import draws
from core.training.data import Examples


@dataclass(frozen=True)
class Batch:
    """B samples on the device, ready to be noised: all that the UNet's error depends on."""

    clean_BCHW: Tensor
    noise_BCHW: Tensor
    timesteps_B: Tensor
    text_BLD: Tensor
    pooled_BP: Tensor
    time_ids_B6: Tensor

    def beside(self, other: "Batch") -> "Batch":
        """Both, these samples first."""
        return Batch(*(torch.cat(pair) for pair in zip(self._parts(), other._parts(), strict=True)))

    def _parts(self) -> tuple[Tensor, ...]:
        return tuple(vars(self).values())


@dataclass(frozen=True)
class Lesson:
    """``name`` keeps the random numbers of a run's lessons apart."""

    examples: Examples
    prompt: Conditioning
    name: str = ""

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """(C, H, W)."""
        return tuple(self.examples.moments.mean_BCHW.shape[1:])

    def purpose(self, what: str) -> str:
        """What ``draws`` is to call a draw of this lesson."""
        return f"{self.name} {what}".strip()

    def rows(self, seed: int, ordinals: Sequence[int]) -> Tensor:
        """The view that each sample shows, shape (B,), on the CPU."""
        pictures, per_picture = self.examples.pictures, self.examples.views_per_picture
        order, view = self.purpose("order"), self.purpose("view")
        return torch.tensor(
            [
                draws.example(seed, order, ordinal, pictures) * per_picture
                + draws.choice(seed, view, ordinal, per_picture)
                for ordinal in ordinals
            ]
        )

    def moments(self, rows_B: Tensor) -> Moments:
        moments = self.examples.moments
        return Moments(moments.mean_BCHW[rows_B], moments.std_BCHW[rows_B])

    def batch(
        self, rows_B: Tensor, clean_BCHW: Tensor, noise_BCHW: Tensor, timesteps_B: Tensor
    ) -> Batch:
        """Samples of views, with the lesson's prompt."""
        count = len(rows_B)
        return Batch(
            clean_BCHW=clean_BCHW,
            noise_BCHW=noise_BCHW,
            timesteps_B=timesteps_B,
            text_BLD=self.prompt.text_1LD.expand(count, -1, -1),
            pooled_BP=self.prompt.pooled_1P.expand(count, -1),
            time_ids_B6=self.examples.time_ids_N6[rows_B],
        )
