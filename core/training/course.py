"""What each step asks of the UNet: the loss of a micro-batch, from nothing but its number."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from core.diffusion.components import Components
from core.diffusion.lora import Lora
from core.diffusion.losses import min_snr_weights, mse_per_sample
from core.diffusion.noise import ForwardProcess
from core.specs import FineTuneSpec
from core.training import draws
from core.training.lesson import Lesson, Shown


@dataclass(frozen=True)
class Batch:
    """B samples on the device: all that the UNet's error depends on."""

    noisy_BCHW: Tensor
    target_BCHW: Tensor
    timesteps_B: Tensor
    text_BLD: Tensor
    pooled_BP: Tensor
    time_ids_B6: Tensor

    def beside(self, other: "Batch") -> "Batch":
        """Both, these samples first."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Batch(*(torch.cat(pair) for pair in pairs))


@dataclass(frozen=True)
class Course:
    """``class_words`` is the class prompt's number on the shelf of words, where there is one.

    ``prior`` teaches the class by pictures; where the spec wants a prior without any, the base's
    own answer to the class prompt does.
    """

    spec: FineTuneSpec
    components: Components
    process: ForwardProcess
    lora: Lora
    instance: Lesson
    prior: Lesson | None = None
    class_words: int | None = None

    def micro_loss(self, step: int, micro: int) -> Tensor:
        """Mean loss of one micro-batch, a scalar that asks the LoRA for gradients."""
        spec = self.spec
        first = (step * spec.accumulation + micro) * spec.batch_size
        ordinals = range(first, first + spec.batch_size)
        batch = instance = self._batch(self.instance, ordinals)
        if spec.prior:
            taught = self._batch(self.prior, ordinals) if self.prior else self._as_class(instance)
            batch = instance.beside(taught)
        if spec.lora.dropout:
            # the one draw that torch makes by itself
            torch.manual_seed(draws.derived_seed(spec.seed or 0, "dropout", first))
        errors_B = self._weighted_errors(batch)
        if spec.prior is None:
            return errors_B.mean()
        instance_B, class_B = errors_B.chunk(2)
        return instance_B.mean() + spec.prior.weight * class_B.mean()

    def predict(self, batch: Batch) -> Tensor:
        """What the UNet says of noisy latents, with whatever is attached to it."""
        predicted_BCHW: Tensor = self.components.unet(
            batch.noisy_BCHW.to(self.components.dtype),
            batch.timesteps_B,
            encoder_hidden_states=batch.text_BLD,
            added_cond_kwargs={"text_embeds": batch.pooled_BP, "time_ids": batch.time_ids_B6},
        ).sample
        return predicted_BCHW

    def batch(
        self, shown: Shown, clean_BCHW: Tensor, noise_BCHW: Tensor, timesteps_B: Tensor
    ) -> Batch:
        """Latents that are noised, with the words that go with them."""
        return Batch(
            noisy_BCHW=self.process.add_noise(clean_BCHW, noise_BCHW, timesteps_B),
            target_BCHW=self.process.target(clean_BCHW, noise_BCHW, timesteps_B),
            timesteps_B=timesteps_B,
            text_BLD=shown.text_BLD,
            pooled_BP=shown.pooled_BP,
            time_ids_B6=shown.time_ids_B6,
        )

    def _batch(self, lesson: Lesson, ordinals: Sequence[int]) -> Batch:
        """What the samples of these ordinals show, with noise and timesteps of their own."""
        seed, shape = self.spec.seed or 0, lesson.latent_shape
        shown = lesson.show(lesson.cells(seed, ordinals))
        posterior_BCHW = draws.normal(seed, lesson.purpose("posterior"), ordinals, shape)
        timesteps_B = draws.choices(
            seed, lesson.purpose("timestep"), ordinals, self.process.timesteps
        )
        return self.batch(
            shown,
            shown.moments.sample(self.on_device(posterior_BCHW)),
            self.on_device(self._noise(lesson, ordinals)),
            self.on_device(timesteps_B),
        )

    def _noise(self, lesson: Lesson, ordinals: Sequence[int]) -> Tensor:
        """Gaussian, on the CPU; with ``noise_offset`` partly one value a channel, or a base learns
        no picture much brighter or darker than the mean."""
        seed, shape = self.spec.seed or 0, lesson.latent_shape
        noise_BCHW = draws.normal(seed, lesson.purpose("noise"), ordinals, shape)
        if not self.spec.noise_offset:
            return noise_BCHW
        purpose = lesson.purpose("noise offset")
        offset_BC11 = draws.normal(seed, purpose, ordinals, (shape[0], 1, 1))
        return noise_BCHW + self.spec.noise_offset * offset_BC11

    def under_class_prompt(self, batch: Batch) -> Batch:
        """The same noisy latents with the class prompt's words."""
        assert self.class_words is not None, "only asked for where there is a class prompt"
        row, count = self.instance.words[self.class_words], len(batch.timesteps_B)
        return replace(
            batch,
            text_BLD=row["text"].expand(count, -1, -1),
            pooled_BP=row["pooled"].expand(count, -1),
        )

    def _as_class(self, instance: Batch) -> Batch:
        """The class prompt with what the base alone says to it."""
        asked = self.under_class_prompt(instance)
        with torch.no_grad(), self.lora.silent():
            return replace(asked, target_BCHW=self.predict(asked).float())

    def _weighted_errors(self, batch: Batch) -> Tensor:
        """The UNet's squared error for each sample, as much as its timestep counts, shape (B,)."""
        errors_B = mse_per_sample(self.predict(batch), batch.target_BCHW)
        if self.spec.snr_gamma is None:
            return errors_B
        return errors_B * self._weight_T[batch.timesteps_B]

    @cached_property
    def _weight_T(self) -> Tensor:
        assert self.spec.snr_gamma is not None, "only asked for where weights are wanted"
        return min_snr_weights(self.process, self.spec.snr_gamma)

    def on_device(self, drawn: Tensor) -> Tensor:
        return drawn.to(self.components.device, non_blocking=True)
