"""Pixels, moments and latents."""

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from core.diffusion import latents
from core.diffusion.components import Components
from tests.support import pictures


def vae_with(**config: object) -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=(8, 8), norm_num_groups=2, down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2, **config,
    ).eval()  # fmt: skip


def test_pictures_survive_the_way_to_pixels_and_back() -> None:
    picture = pictures.draw(1, width=9, height=7)
    pixels = latents.to_pixels(picture)
    assert pixels.shape == (3, 7, 9)
    assert pixels.min() >= -1
    assert pixels.max() <= 1
    assert np.array_equal(np.array(latents.to_image(pixels)), np.array(picture))


def test_values_outside_the_range_are_clipped() -> None:
    image = latents.to_image(torch.tensor([-3.0, 0.0, 3.0]).view(3, 1, 1))
    assert image.getpixel((0, 0)) == (0, 128, 255)


def test_moments_are_the_posterior_in_the_units_of_the_unet() -> None:
    vae = vae_with(scaling_factor=0.25)
    pixels = torch.rand(2, 3, 16, 16)
    posterior = vae.encode(pixels).latent_dist
    moments = latents.encode(vae, pixels)
    torch.testing.assert_close(moments.mean_BCHW, posterior.mean * 0.25)
    torch.testing.assert_close(moments.std_BCHW, posterior.std * 0.25)
    noise = torch.randn_like(posterior.mean)
    torch.testing.assert_close(
        moments.sample(noise), (posterior.mean + posterior.std * noise) * 0.25
    )


@pytest.mark.parametrize(
    "config",
    [
        {"scaling_factor": 0.25},
        {
            "scaling_factor": 0.5,
            "latents_mean": [0.1, -0.2, 0.3, 0.0],
            "latents_std": [2.0, 1.0, 0.5, 3.0],
        },
    ],
)
def test_decoding_undoes_the_units_of_encoding(config: dict[str, object]) -> None:
    vae = vae_with(**config)
    pixels = torch.rand(1, 3, 16, 16)
    expected = vae.decode(vae.encode(pixels).latent_dist.mean).sample
    actual = latents.decode(vae, latents.encode(vae, pixels).mean_BCHW)
    torch.testing.assert_close(actual, expected)


def test_mean_and_deviation_of_the_latents_are_taken_off_as_diffusers_puts_them_on(
    nano_ssd_1b: Components,
) -> None:
    vae = vae_with(
        scaling_factor=0.5, latents_mean=[1.0, 2.0, 3.0, 4.0], latents_std=[2.0, 2.0, 2.0, 2.0]
    )
    given = torch.randn(1, 4, 8, 8)
    mean = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1)
    torch.testing.assert_close(
        latents.decode(vae, given), vae.decode(given * 2.0 / 0.5 + mean).sample
    )
