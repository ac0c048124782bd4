"""What each step of a fine-tune asks of the UNet: the loss of a micro-batch, from nothing but its
number."""

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from core.diffusion.lora import Lora
from core.diffusion.losses import mse_per_sample
from core.specs import FineTuneSpec
from core.training import draws, export
from core.training.batches import Batch, Batches
from core.training.lesson import Lesson
from core.training.loss import Loss


@dataclass(frozen=True)
class Course:
    """``class_words`` is the class prompt's number on the shelf of words, where there is one.

    ``prior`` teaches the class by pictures; where the spec wants a prior without any, the base's
    own answer to the class prompt does.
    """

    spec: FineTuneSpec
    batches: Batches
    unet: UNet2DConditionModel
    lora: Lora
    instance: Lesson
    prior: Lesson | None = None
    class_words: int | None = None

    def micro_loss(self, step: int, micro: int) -> Loss:
        """Mean loss of one micro-batch; it asks the LoRA for gradients."""
        spec, ordinals = self.spec, self.batches.ordinals(step, micro)
        batch = instance = self.batches.draw(self.instance, ordinals)
        if spec.prior:
            by_pictures = self.prior and self.batches.draw(self.prior, ordinals)
            batch = instance.beside(by_pictures or self._as_class(instance))
        if spec.lora.dropout:
            # the one draw that torch makes by itself
            torch.manual_seed(draws.derived_seed(spec.seed or 0, "dropout", ordinals[0]))
        errors_B = self._weighted_errors(batch)
        if spec.prior is None:
            return Loss(errors_B.mean())
        instance_B, class_B = errors_B.chunk(2)
        return Loss(instance_B.mean() + spec.prior.weight * class_B.mean())

    def shown(self) -> AbstractContextManager[None]:
        """Inside, what was learnt is as it will be used."""
        return self.lora.evaluating()

    def snapshot(self, folder: Path, step: int) -> Path:
        """Writes what was learnt by ``step``, as others load it."""
        path = folder / f"lora-step-{step:06d}.safetensors"
        export.save_for_diffusers(self.lora, path, trigger=self.spec.trigger)
        return path

    def under_class_prompt(self, batch: Batch) -> Batch:
        """The same noisy latents with the class prompt's words."""
        assert self.class_words is not None, "only asked for where there is a class prompt"
        return batch.under(self.instance.words[self.class_words])

    def _as_class(self, instance: Batch) -> Batch:
        """The class prompt with what the base alone says to it."""
        asked = self.under_class_prompt(instance)
        with torch.no_grad(), self.lora.silent():
            return replace(asked, target_BCHW=asked.asked_of(self.unet).float())

    def _weighted_errors(self, batch: Batch) -> Tensor:
        """The UNet's squared error for each sample, as much as its timestep counts, shape (B,)."""
        errors_B = mse_per_sample(batch.asked_of(self.unet), batch.target_BCHW)
        return errors_B * self.batches.weights_B(batch)
