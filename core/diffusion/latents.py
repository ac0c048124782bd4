"""Pixels to latents and back.

Pixels are RGB in [-1, 1], shape (B, 3, H, W); latents are (B, 4, H/f, W/f) in the UNet's units,
about one in standard deviation, f being the VAE's factor.
"""

from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """What the VAE says of pictures: a Gaussian a cell, already in the UNet's units, float32."""

    mean_BCHW: Tensor
    std_BCHW: Tensor

    def sample(self, noise_BCHW: Tensor) -> Tensor:
        """A latent for standard normal noise."""
        return self.mean_BCHW + self.std_BCHW * noise_BCHW


@torch.no_grad()
def encode(vae: AutoencoderKL, pixels_BCHW: Tensor) -> Moments:
    """The moments of pictures; on the VAE's device, whatever the pixels' device and dtype."""
    posterior = vae.encode(pixels_BCHW.to(vae.device, vae.dtype)).latent_dist
    mean, std, factor = _units(vae)
    return Moments(
        mean_BCHW=(posterior.mean.float() - mean) * factor / std,
        std_BCHW=posterior.std.float() * factor / std,
    )


@torch.no_grad()
def decode(vae: AutoencoderKL, latents_BCHW: Tensor) -> Tensor:
    """Pixels for latents, float32; not clipped."""
    mean, std, factor = _units(vae)
    # in diffusers' order, so that not a bit differs from its pipelines
    pixels_BCHW: Tensor = vae.decode((latents_BCHW * std / factor + mean).to(vae.dtype)).sample
    return pixels_BCHW.float()


def to_image(pixels_CHW: Tensor) -> Image.Image:
    """An 8-bit picture; values outside [-1, 1] are clipped."""
    levels_HWC = ((pixels_CHW / 2 + 0.5).clamp(0, 1) * 255).round().permute(1, 2, 0)
    return Image.fromarray(levels_HWC.to("cpu", torch.uint8).numpy())


def to_pixels(image: Image.Image) -> Tensor:
    """Pixels of an RGB picture, shape (3, H, W), float32."""
    levels_HWC = torch.from_numpy(np.array(image, dtype=np.uint8))
    return levels_HWC.permute(2, 0, 1).float() / 127.5 - 1


def _units(vae: AutoencoderKL) -> tuple[Tensor, Tensor, float]:
    """What SDXL's configuration says of the VAE's outputs: their mean and deviation, shape
    (1, C, 1, 1), and the factor that those of a standardised latent were divided by."""
    mean, std = vae.config.latents_mean, vae.config.latents_std
    if mean is None or std is None:
        mean, std = [0.0], [1.0]
    return (
        torch.tensor(mean, device=vae.device).view(1, -1, 1, 1),
        torch.tensor(std, device=vae.device).view(1, -1, 1, 1),
        vae.config.scaling_factor,
    )
