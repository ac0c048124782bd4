"""What a UNet is asked in a step: noisy latents of a lesson's samples, with their words."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from core.diffusion.losses import min_snr_weights
from core.diffusion.noise import ForwardProcess
from core.specs import TrainingSpec
from core.training import draws
from core.training.lesson import Lesson, Shown
from core.training.shelf import Row


@dataclass(frozen=True)
class Batch:
    """B samples on the device: all that the UNet's error depends on."""

    noisy_BCHW: Tensor
    target_BCHW: Tensor
    timesteps_B: Tensor
    text_BLD: Tensor
    pooled_BP: Tensor
    time_ids_B6: Tensor

    def asked_of(self, unet: UNet2DConditionModel) -> Tensor:
        """What the UNet says, with whatever is attached to it, shaped as the target."""
        predicted_BCHW: Tensor = unet(
            self.noisy_BCHW.to(unet.dtype),
            self.timesteps_B,
            encoder_hidden_states=self.text_BLD.to(unet.dtype),
            added_cond_kwargs={
                "text_embeds": self.pooled_BP.to(unet.dtype),
                "time_ids": self.time_ids_B6,
            },
        ).sample
        return predicted_BCHW

    def beside(self, other: "Batch") -> "Batch":
        """Both, these samples first."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Batch(*(torch.cat(pair) for pair in pairs))

    def under(self, words: Row) -> "Batch":
        """The same noisy latents with other words, the same for all."""
        count = len(self.timesteps_B)
        return replace(
            self,
            text_BLD=words["text"].expand(count, -1, -1),
            pooled_BP=words["pooled"].expand(count, -1),
        )


@dataclass(frozen=True)
class Batches:
    """``noise_offset``: share of the noise that is one value a channel, or a base learns no picture
    much brighter or darker than the mean."""

    spec: TrainingSpec
    process: ForwardProcess
    device: torch.device
    noise_offset: float = 0.0

    def ordinals(self, step: int, micro: int) -> range:
        """Of a micro-batch's samples."""
        first = (step * self.spec.accumulation + micro) * self.spec.batch_size
        return range(first, first + self.spec.batch_size)

    def draw(self, lesson: Lesson, ordinals: Sequence[int]) -> Batch:
        """What the samples of these ordinals show, with noise and timesteps of their own."""
        seed, shape = self.spec.seed or 0, lesson.latent_shape
        shown = lesson.show(lesson.cells(seed, ordinals))
        posterior_BCHW = draws.normal(seed, lesson.purpose("posterior"), ordinals, shape)
        timesteps_B = draws.choices(
            seed, lesson.purpose("timestep"), ordinals, self.process.timesteps
        )
        return self.noised(
            shown,
            shown.moments.sample(self._on_device(posterior_BCHW)),
            self._noise(lesson, ordinals),
            timesteps_B,
        )

    def noised(
        self, shown: Shown, clean_BCHW: Tensor, noise_BCHW: Tensor, timesteps_B: Tensor
    ) -> Batch:
        """Latents that are noised, with the words that go with them. Noise and timesteps may be on
        any device."""
        noise_BCHW, timesteps_B = self._on_device(noise_BCHW), self._on_device(timesteps_B)
        return Batch(
            noisy_BCHW=self.process.add_noise(clean_BCHW, noise_BCHW, timesteps_B),
            target_BCHW=self.process.target(clean_BCHW, noise_BCHW, timesteps_B),
            timesteps_B=timesteps_B,
            text_BLD=shown.text_BLD,
            pooled_BP=shown.pooled_BP,
            time_ids_B6=shown.time_ids_B6,
        )

    def weights_B(self, batch: Batch) -> Tensor:
        """How much each sample's answer counts: 1, or by its timestep where the spec says so."""
        if self.spec.snr_gamma is None:
            return torch.ones_like(batch.timesteps_B, dtype=torch.float32)
        return self._weight_T[batch.timesteps_B]

    @cached_property
    def _weight_T(self) -> Tensor:
        assert self.spec.snr_gamma is not None, "only asked for where weights are wanted"
        return min_snr_weights(self.process, self.spec.snr_gamma)

    def _noise(self, lesson: Lesson, ordinals: Sequence[int]) -> Tensor:
        """Gaussian, on the CPU."""
        seed, shape = self.spec.seed or 0, lesson.latent_shape
        noise_BCHW = draws.normal(seed, lesson.purpose("noise"), ordinals, shape)
        if not self.noise_offset:
            return noise_BCHW
        purpose = lesson.purpose("noise offset")
        offset_BC11 = draws.normal(seed, purpose, ordinals, (shape[0], 1, 1))
        return noise_BCHW + self.noise_offset * offset_BC11

    def _on_device(self, drawn: Tensor) -> Tensor:
        return drawn.to(self.device, non_blocking=True)
