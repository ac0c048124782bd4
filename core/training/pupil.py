"""The UNet that learns, whole: weights in float32, computed with in the run's precision."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from core.diffusion.components import Components
from core.diffusion.probe import probe


@dataclass(frozen=True)
class Pupil:
    """``dtype`` is what it computes in; float32 means that nothing is cast."""

    unet: UNet2DConditionModel
    dtype: torch.dtype

    @classmethod
    def enter(cls, unet: UNet2DConditionModel, components: Components) -> "Pupil":
        """``unet`` where ``components`` are, ready to learn what they compute in."""
        unet.to(components.device).train().requires_grad_(True)
        return cls(unet, components.dtype)

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        return dict(self.unet.named_parameters())

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Inside, matrices and convolutions are computed in ``dtype``. Halves of the weights are
        made as they are needed. A pass whose activations are computed again keeps none of them,
        which are 2.7 GB for SSD-1B; one that keeps its activations keeps them too."""
        with torch.autocast(
            self.unet.device.type,
            dtype=self.dtype,
            enabled=self.dtype != torch.float32,
            cache_enabled=False,
        ):
            yield

    @torch.no_grad()
    def probed(self) -> Tensor:
        """What it answers now to ``probe``."""
        with self.computing():
            return probe(self.unet)
