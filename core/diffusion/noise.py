"""The forward process: how a latent is noised, and what the UNet is to say about it.

    x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) e

with a_t the cumulative product of the alphas (Ho et al., arXiv:2006.11239). T is the number of
training timesteps, B the batch.
"""

from dataclasses import dataclass

import torch
from diffusers import DDPMScheduler
from torch import Tensor


@dataclass(frozen=True)
class ForwardProcess:
    """Tables on the device, so that no step copies one there.

    ``target_is_velocity``: the base was trained on v = sqrt(a_t) e - sqrt(1 - a_t) x_0
    (Salimans and Ho, arXiv:2202.00512) in place of e.
    """

    signal_T: Tensor  # sqrt(a_t), float32
    noise_T: Tensor  # sqrt(1 - a_t), float32
    target_is_velocity: bool

    @property
    def timesteps(self) -> int:
        return len(self.signal_T)

    @property
    def snr_T(self) -> Tensor:
        """Signal-to-noise ratio of each timestep, a_t / (1 - a_t)."""
        return (self.signal_T / self.noise_T) ** 2

    def add_noise(self, latents_BCHW: Tensor, noise_BCHW: Tensor, timesteps_B: Tensor) -> Tensor:
        """x_t, shaped as the latents."""
        signal_B111, noise_B111 = self._levels(timesteps_B)
        return signal_B111 * latents_BCHW + noise_B111 * noise_BCHW

    def target(self, latents_BCHW: Tensor, noise_BCHW: Tensor, timesteps_B: Tensor) -> Tensor:
        """What the UNet is trained to output at x_t, shaped as the latents."""
        if not self.target_is_velocity:
            return noise_BCHW
        signal_B111, noise_B111 = self._levels(timesteps_B)
        return signal_B111 * noise_BCHW - noise_B111 * latents_BCHW

    def _levels(self, timesteps_B: Tensor) -> tuple[Tensor, Tensor]:
        shape = (-1, 1, 1, 1)
        return self.signal_T[timesteps_B].view(shape), self.noise_T[timesteps_B].view(shape)


def forward_process(scheduler_config: dict[str, object], device: torch.device) -> ForwardProcess:
    """The process that a base was trained with, as its scheduler's config tells.

    Raises:
        ValueError: the base predicts something other than the noise or the velocity.
    """
    scheduler = DDPMScheduler.from_config(scheduler_config)
    prediction = scheduler.config.prediction_type
    if prediction not in ("epsilon", "v_prediction"):
        raise ValueError(f"cannot train a base that predicts {prediction!r}")
    cumulative_T = scheduler.alphas_cumprod.to(torch.float32)
    return ForwardProcess(
        signal_T=cumulative_T.sqrt().to(device),
        noise_T=(1 - cumulative_T).sqrt().to(device),
        target_is_velocity=prediction == "v_prediction",
    )
