"""Trains the VAE: pictures to 16 x 16 latents and back.

The loss is L1 + L2 + half the L1 of the pictures' gradients, which keeps edges; latents are shaken
a little while they are decoded, so that near latents give near pictures. At the end the latents
are standardised, channel by channel, inside the VAE's own 1 x 1 convolutions: any program that
knows only ``scaling_factor`` then finds them centred, with a deviation of one.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from core.nano import shape
from core.nano.recipe import scenes
from core.nano.recipe.scenes import Array, Cutout
from core.nano.recipe.sitting import stage

SEED = 3101
HELD_OUT_SEED = 3102
BATCH = 8
LEARNING_RATE = 1.5e-3
WARM_UP = 200  # steps
SHAKE = 0.1
"""Of latents of about unit size."""
GRADIENT_WEIGHT = 0.5
SIZE_WEIGHT = 1e-3
HELD_OUT = 256  # pictures


def train(vae: AutoencoderKL, cutouts: list[Cutout], steps: int, work: Path) -> Iterator[str]:
    """Trains in place, in sittings; yields a line now and then.

    Args:
        vae: in float32; trained under bfloat16 autocast.
        cutouts: to compose scenes of.
        steps: of ``BATCH`` scenes; the rate falls to zero over them.
        work: the folder that keeps it between sittings.
    """
    vae.train().requires_grad_(True).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(vae.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99))
    yield from stage("vae", dict(vae.named_parameters()), optimizer, None, work).run(
        loss_of=lambda step: _loss(vae, cutouts, step),
        rate_of=lambda step: _rate(step, steps),
        steps=steps,
    )
    vae.eval().requires_grad_(False)


@torch.no_grad()
def error(vae: AutoencoderKL, cutouts: list[Cutout]) -> float:
    """Mean absolute error on scenes held out, of a range of 2."""
    pixels_BCHW = batch(cutouts, HELD_OUT_SEED, range(HELD_OUT))
    errors = [
        (vae.decode(vae.encode(part).latent_dist.mean).sample - part).abs().mean()
        for part in torch.split(pixels_BCHW, 32)
    ]
    return torch.stack(errors).mean().item()


def batch(cutouts: list[Cutout], seed: int, ordinals: range) -> Tensor:
    """Scenes as pixels in [-1, 1], shape (B, 3, 64, 64)."""
    pictures = []
    for ordinal in ordinals:
        random = scenes.random_of(seed, ordinal)
        cutout = cutouts[int(random.integers(len(cutouts)))]
        pictures.append(scenes.compose(cutout, random).pixels_HWC)
    return pixels(np.stack(pictures))


def pixels(levels_BHWC: Array) -> Tensor:
    """Bytes to [-1, 1], channels first."""
    levels_BCHW = torch.from_numpy(levels_BHWC).permute(0, 3, 1, 2)
    return (levels_BCHW.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def standardise(vae: AutoencoderKL, cutouts: list[Cutout]) -> None:
    """Makes the latents' mean zero and their deviation ``1 / scaling_factor``, per channel.

    The decoder undoes it first, so pictures do not change; and the encoder's variance, which this
    training does not use, is set as low as SDXL's.
    """
    pixels_BCHW = batch(cutouts, SEED, range(1024))
    latents_BCHW = torch.cat(
        [vae.encode(part).latent_dist.mean for part in torch.split(pixels_BCHW, 32)]
    )
    mean_C = latents_BCHW.mean((0, 2, 3))
    gain_C = 1 / (latents_BCHW.std((0, 2, 3)) * vae.config.scaling_factor)
    into, back = vae.quant_conv, vae.post_quant_conv
    channels = len(mean_C)
    back.bias += back.weight[:, :, 0, 0] @ mean_C
    back.weight /= gain_C[None, :, None, None]
    into.weight[:channels] *= gain_C[:, None, None, None]
    into.bias[:channels] = (into.bias[:channels] - mean_C) * gain_C
    into.weight[channels:] = 0
    into.bias[channels:] = shape.VAE_LOG_VARIANCE


def _loss(vae: AutoencoderKL, cutouts: list[Cutout], step: int) -> Tensor:
    pixels_BCHW = batch(cutouts, SEED, range(step * BATCH, (step + 1) * BATCH))
    noise = torch.Generator().manual_seed(SEED + step)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        latents_BCHW = vae.encode(pixels_BCHW).latent_dist.mean
        shake_BCHW = SHAKE * torch.randn(latents_BCHW.shape, generator=noise)
        drawn_BCHW = vae.decode(latents_BCHW + shake_BCHW).sample
    # a light pull to unit size, so that the shake means something
    size: Tensor = SIZE_WEIGHT * latents_BCHW.float().square().mean()
    return size + _distance(drawn_BCHW.float(), pixels_BCHW)


def _rate(step: int, steps: int) -> float:
    return LEARNING_RATE * min((step + 1) / WARM_UP, 1.0) * max(1 - step / steps, 0.01)


def _distance(drawn_BCHW: Tensor, pixels_BCHW: Tensor) -> Tensor:
    off_BCHW = drawn_BCHW - pixels_BCHW
    edges = off_BCHW.diff(dim=2).abs().mean() + off_BCHW.diff(dim=3).abs().mean()
    distance: Tensor = off_BCHW.abs().mean() + off_BCHW.square().mean() + GRADIENT_WEIGHT * edges
    return distance
