"""The forward process against diffusers' DDPM."""

from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler

from core.diffusion import noise
from core.diffusion.components import Components

CPU = torch.device("cpu")
TIMESTEPS = torch.tensor([0, 250, 999])


def config_of(components: Components, prediction: str) -> dict[str, Any]:
    return {**components.scheduler.config, "prediction_type": prediction}


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_noised_latents_and_targets(prediction: str, nano_ssd_1b: Components) -> None:
    config = config_of(nano_ssd_1b, prediction)
    theirs, ours = DDPMScheduler.from_config(config), noise.forward_process(config, CPU)
    latents, added = torch.randn(2, 3, 4, 5, 5).unbind()
    torch.testing.assert_close(
        ours.add_noise(latents, added, TIMESTEPS), theirs.add_noise(latents, added, TIMESTEPS)
    )
    velocity = theirs.get_velocity(latents, added, TIMESTEPS)
    torch.testing.assert_close(
        ours.target(latents, added, TIMESTEPS), added if prediction == "epsilon" else velocity
    )
    assert ours.timesteps == 1000


def test_betas_are_those_of_sdxl(nano_ssd_1b: Components) -> None:
    process = noise.forward_process(nano_ssd_1b.scheduler.config, CPU)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    signal = (1 - betas).cumprod(0).sqrt().float()
    torch.testing.assert_close(process.signal_T, signal, rtol=1e-4, atol=0)


def test_a_base_that_predicts_something_else_is_refused(nano_ssd_1b: Components) -> None:
    with pytest.raises(ValueError, match="'sample'"):
        noise.forward_process(config_of(nano_ssd_1b, "sample"), CPU)
