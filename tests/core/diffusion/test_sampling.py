"""Our loop against the pipeline's: the same latents for the same seed."""

import typing
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from core.diffusion import conditioning, sampling
from core.diffusion.components import Components
from core.specs import GenerateSpec
from tests.support.nano import NUMPY_COPY

pytestmark = NUMPY_COPY

STEPS = 4


def ours(components: Components, scheduler: str, guidance: float) -> list[Tensor]:
    steps = sampling.denoise(
        components,
        prompt=conditioning.encode_prompt(components, "a dog"),
        negative=conditioning.encode_negative(components, "blurry"),
        scheduler=scheduler,
        steps=STEPS,
        guidance=guidance,
        height=48,
        width=64,
        generator=torch.Generator().manual_seed(3),
    )
    return list(steps)


def theirs(components: Components, scheduler: str, guidance: float) -> Tensor:
    kind, changes = sampling.SCHEDULERS[scheduler]
    pipeline = components.pipeline()
    pipeline.scheduler = kind.from_config(components.scheduler.config, **changes)
    pipeline.set_progress_bar_config(disable=True)
    latents: Tensor = pipeline(
        "a dog",
        negative_prompt="blurry",
        num_inference_steps=STEPS,
        guidance_scale=guidance,
        height=48,
        width=64,
        generator=torch.Generator().manual_seed(3),
        output_type="latent",
    ).images
    return latents


def test_every_scheduler_of_the_contract_is_here() -> None:
    named = typing.get_args(GenerateSpec.model_fields["scheduler"].annotation)
    assert set(sampling.SCHEDULERS) == set(named)


@pytest.mark.parametrize("scheduler", sampling.SCHEDULERS)
def test_equal_to_the_pipeline(scheduler: str, nano_ssd_1b: Components) -> None:
    steps = ours(nano_ssd_1b, scheduler, guidance=5.0)
    assert len(steps) == STEPS
    assert steps[-1].shape == (1, 4, 12, 16)
    assert torch.equal(steps[-1], theirs(nano_ssd_1b, scheduler, guidance=5.0))


@pytest.mark.parametrize("guidance", [0.0, 1.0])
def test_without_guidance_the_negative_is_not_computed(
    guidance: float, nano_ssd_1b: Components
) -> None:
    rows: list[int] = []
    handle = nano_ssd_1b.unet.register_forward_pre_hook(
        lambda module, inputs: rows.append(len(inputs[0]))
    )
    latents = ours(nano_ssd_1b, "euler", guidance)[-1]
    handle.remove()
    assert rows == [1] * STEPS
    assert torch.equal(latents, theirs(nano_ssd_1b, "euler", guidance))


def test_stopping_leaves_the_callers_gradients_on(nano_ssd_1b: Components) -> None:
    steps = sampling.denoise(
        nano_ssd_1b,
        prompt=conditioning.encode_prompt(nano_ssd_1b, "a dog"),
        negative=None,
        scheduler="euler",
        steps=STEPS,
        guidance=1.0,
        height=64,
        width=64,
        generator=torch.Generator().manual_seed(3),
    )
    assert not next(steps).requires_grad
    assert torch.is_grad_enabled()


def test_the_schedulers_of_the_base_itself_are_never_touched(nano_ssd_1b: Components) -> None:
    base = replace(nano_ssd_1b, scheduler=type(nano_ssd_1b.scheduler)(**SDXL_BETAS))
    before = base.scheduler.timesteps.clone()
    ours(base, "euler", guidance=1.0)
    assert torch.equal(base.scheduler.timesteps, before)


SDXL_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
