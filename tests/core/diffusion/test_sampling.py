"""Our loop against the pipelines': the same latents for the same seed."""

import typing
from dataclasses import replace

import pytest
import torch
from diffusers import StableDiffusionXLImg2ImgPipeline
from torch import Tensor

from core.diffusion import conditioning, latents, sampling
from core.diffusion.components import Components
from core.diffusion.sampling import Beginning, Row
from core.specs import GenerateSpec, denoising_steps
from tests.support.nano import NUMPY_COPY

pytestmark = NUMPY_COPY

STEPS = 4
HEIGHT, WIDTH = 48, 64


def row_of(
    components: Components, *, seed: int = 3, guidance: float = 5.0, prompt: str = "a dog"
) -> Row:
    return Row(
        prompt=conditioning.encode_prompt(components, prompt),
        negative=conditioning.encode_negative(components, "blurry"),
        guidance=guidance,
        generator=torch.Generator().manual_seed(seed),
    )


def ours(components: Components, *rows: Row, scheduler: str = "euler") -> list[Tensor]:
    return list(
        sampling.denoise(
            components, rows, scheduler=scheduler, steps=STEPS, height=HEIGHT, width=WIDTH
        )
    )


def theirs(components: Components, scheduler: str, guidance: float) -> Tensor:
    kind, changes = sampling.SCHEDULERS[scheduler]
    pipeline = components.pipeline()
    pipeline.scheduler = kind.from_config(components.scheduler.config, **changes)
    pipeline.set_progress_bar_config(disable=True)
    drawn: Tensor = pipeline(
        "a dog",
        negative_prompt="blurry",
        num_inference_steps=STEPS,
        guidance_scale=guidance,
        height=HEIGHT,
        width=WIDTH,
        generator=torch.Generator().manual_seed(3),
        output_type="latent",
    ).images
    return drawn


def test_every_scheduler_of_the_contract_is_here() -> None:
    named = typing.get_args(GenerateSpec.model_fields["scheduler"].annotation)
    assert set(sampling.SCHEDULERS) == set(named)


@pytest.mark.parametrize("scheduler", sampling.SCHEDULERS)
def test_equal_to_the_pipeline(scheduler: str, nano_ssd_1b: Components) -> None:
    steps = ours(nano_ssd_1b, row_of(nano_ssd_1b), scheduler=scheduler)
    assert len(steps) == STEPS
    assert steps[-1].shape == (1, 4, 12, 16)
    assert torch.equal(steps[-1], theirs(nano_ssd_1b, scheduler, guidance=5.0))


@pytest.mark.parametrize("scheduler", sampling.SCHEDULERS)
def test_from_a_picture_on_equal_to_the_pipeline(scheduler: str, nano_ssd_1b: Components) -> None:
    pixels_1CHW = 2 * torch.rand(1, 3, HEIGHT, WIDTH, generator=torch.manual_seed(1)) - 1
    moments = latents.encode(nano_ssd_1b.vae, pixels_1CHW)
    row = replace(row_of(nano_ssd_1b), beginning=Beginning(moments, strength=0.6))
    steps = ours(nano_ssd_1b, row, scheduler=scheduler)
    kind, changes = sampling.SCHEDULERS[scheduler]
    pipeline = StableDiffusionXLImg2ImgPipeline(
        **nano_ssd_1b.pipeline().components | {"image_encoder": None, "feature_extractor": None},
        add_watermarker=False,
    )
    pipeline.scheduler = kind.from_config(nano_ssd_1b.scheduler.config, **changes)
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        "a dog",
        negative_prompt="blurry",
        image=pixels_1CHW / 2 + 0.5,
        strength=0.6,
        num_inference_steps=STEPS,
        guidance_scale=5.0,
        generator=torch.Generator().manual_seed(3),
        output_type="latent",
    ).images
    assert len(steps) == denoising_steps(STEPS, 0.6) == 2
    torch.testing.assert_close(steps[-1], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("steps", "strength", "taken"), [(25, None, 25), (25, 1.0, 25), (25, 0.5, 12), (4, 0.1, 1)]
)
def test_how_far_a_strength_goes(steps: int, strength: float | None, taken: int) -> None:
    assert denoising_steps(steps, strength) == taken


@pytest.mark.parametrize("scheduler", sampling.SCHEDULERS)
def test_rows_in_a_batch_are_those_drawn_alone(scheduler: str, nano_ssd_1b: Components) -> None:
    """Each with its prompt, its guidance and its noise, also where the solver draws more of it."""

    def rows() -> list[Row]:
        return [
            row_of(nano_ssd_1b, seed=1),
            row_of(nano_ssd_1b, seed=2, guidance=2.5),
            row_of(nano_ssd_1b, seed=3, prompt="a red circle on blue"),
        ]

    together = ours(nano_ssd_1b, *rows(), scheduler=scheduler)[-1]
    alone = [ours(nano_ssd_1b, row, scheduler=scheduler)[-1] for row in rows()]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("guidance", [0.0, 1.0])
def test_without_guidance_the_negative_is_not_computed(
    guidance: float, nano_ssd_1b: Components
) -> None:
    rows: list[int] = []
    handle = nano_ssd_1b.unet.register_forward_pre_hook(
        lambda module, inputs: rows.append(len(inputs[0]))
    )
    drawn = ours(nano_ssd_1b, row_of(nano_ssd_1b, guidance=guidance))[-1]
    handle.remove()
    assert rows == [1] * STEPS
    assert torch.equal(drawn, theirs(nano_ssd_1b, "euler", guidance))


def test_stopping_leaves_the_callers_gradients_on(nano_ssd_1b: Components) -> None:
    row = replace(row_of(nano_ssd_1b), negative=None)
    steps = sampling.denoise(
        nano_ssd_1b, [row], scheduler="euler", steps=STEPS, height=HEIGHT, width=WIDTH
    )
    assert not next(steps).requires_grad
    assert torch.is_grad_enabled()


def test_the_schedulers_of_the_base_itself_are_never_touched(nano_ssd_1b: Components) -> None:
    base = replace(nano_ssd_1b, scheduler=type(nano_ssd_1b.scheduler)(**SDXL_BETAS))
    before = base.scheduler.timesteps.clone()
    ours(base, row_of(base))
    assert torch.equal(base.scheduler.timesteps, before)


SDXL_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
