"""What each step of a distillation asks of the student: to say what is true, to say what its
teacher says, and to think as it thinks. Gupta et al., arXiv:2401.02677, section 3.

    L = task MSE(S, target) + output MSE(S, T) + feature sum_l MSE(S_l, T_l)

S and T answer the same noisy latents, timesteps and words; l runs over the layers that both have.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from torch.nn import functional as F

from core.diffusion import unet_folder
from core.diffusion.features import places, recorded
from core.diffusion.losses import mse_per_sample
from core.specs import DistillSpec
from core.training.batches import Batch, Batches
from core.training.lesson import Lesson
from core.training.loss import Loss
from core.training.pupil import Pupil


@dataclass(frozen=True)
class Distillation:
    """``teacher`` is frozen. A part of the loss that counts nothing is not computed."""

    spec: DistillSpec
    batches: Batches
    teacher: UNet2DConditionModel
    pupil: Pupil
    lesson: Lesson

    @cached_property
    def places(self) -> tuple[str, ...]:
        """Of the features that are compared."""
        return places(self.pupil.unet) if self.spec.loss.feature else ()

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the loss's parts, as ``micro_loss`` tells them."""
        loss = self.spec.loss
        told = [name for name in ("task", "output", "feature") if getattr(loss, name)]
        return (*told, *(f"feature.{place}" for place in self.places))

    def micro_loss(self, step: int, micro: int) -> Loss:
        """Mean loss of one micro-batch; it asks the student for gradients."""
        batch = self.batches.draw(self.lesson, self.batches.ordinals(step, micro))
        parts: dict[str, Tensor] = {}
        features: dict[str, Tensor] = {}
        taught_BCHW, taught = self._teach(batch)
        with self.pupil.computing(), recorded(self.pupil.unet, self.places) as learnt:
            answer_BCHW = batch.asked_of(self.pupil.unet)
        weight_B = self.batches.weights_B(batch)
        if self.spec.loss.task:
            parts["task"] = (weight_B * mse_per_sample(answer_BCHW, batch.target_BCHW)).mean()
        if taught_BCHW is not None and self.spec.loss.output:
            parts["output"] = (weight_B * mse_per_sample(answer_BCHW, taught_BCHW)).mean()
        for place in self.places:
            features[f"feature.{place}"] = feature_error(learnt[place], taught[place])
        if features:
            parts["feature"] = torch.stack(list(features.values())).sum()
        total = torch.stack([getattr(self.spec.loss, name) * parts[name] for name in parts]).sum()
        return Loss(total, {name: term.detach() for name, term in (parts | features).items()})

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Inside, the student computes as it does in training."""
        with self.pupil.computing():
            yield

    def snapshot(self, folder: Path, step: int) -> Path:
        """Writes the student of ``step`` as diffusers' folder."""
        return unet_folder.write(self.pupil.unet, folder / f"unet-step-{step:06d}")

    @torch.no_grad()
    def _teach(self, batch: Batch) -> tuple[Tensor | None, dict[str, Tensor]]:
        """The teacher's answer and its features; nothing where nobody compares."""
        if not (self.spec.loss.output or self.spec.loss.feature):
            return None, {}
        with recorded(self.teacher, self.places) as features:
            return batch.asked_of(self.teacher), features


def feature_error(learnt: Tensor, taught: Tensor) -> Tensor:
    """Mean squared difference of two features of one shape, a float32 scalar.

    Its mean is a step of its own: the one that torch takes inside ``mse_loss`` is a scalar whose
    storage is as large as the features (torch issue 185647), 267 MB of them for SSD-1B at 1024 px.
    """
    return F.mse_loss(learnt.float(), taught.float(), reduction="none").mean()
