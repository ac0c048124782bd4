"""From noise to latents, step by step.

Equal to what ``StableDiffusionXLPipeline`` does with the same seed, but a generator: the caller
sees each step, and stops by not asking for the next.
"""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor

from core.diffusion import conditioning
from core.diffusion.components import Components
from core.diffusion.conditioning import Conditioning

SCHEDULERS: Mapping[str, tuple[type[Any], Mapping[str, object]]] = {
    "euler": (EulerDiscreteScheduler, {}),
    "euler_a": (EulerAncestralDiscreteScheduler, {}),
    # SDXL's latents reach far beyond [-1, 1], where DDIM clips unless told.
    "ddim": (DDIMScheduler, {"clip_sample": False, "set_alpha_to_one": False}),
    "dpmpp_2m_karras": (DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
    "unipc": (UniPCMultistepScheduler, {}),
    "lcm": (LCMScheduler, {}),
}
"""The names of ``GenerateSpec.scheduler``: diffusers' class, and what to change in the base's
scheduler config."""


@torch.no_grad()
def denoise(
    components: Components,
    *,
    prompt: Conditioning,
    negative: Conditioning | None,
    scheduler: str,
    steps: int,
    guidance: float,
    height: int,
    width: int,
    generator: torch.Generator,
) -> Iterator[Tensor]:
    """Yields the latents (1, 4, H/f, W/f) after each denoising step; the last are the picture's.

    Args:
        prompt: what to draw.
        negative: what to steer away from; None, or ``guidance`` <= 1, skips that half of the work.
        scheduler: a key of ``SCHEDULERS``.
        steps: denoising steps.
        guidance: w in e = e_neg + w (e_prompt - e_neg). Ho and Salimans, arXiv:2207.12598.
        height: of the picture in pixels, a multiple of the latent factor.
        width: likewise.
        generator: on the CPU, so that a seed is the same picture whatever the device.
    """
    solver = _solver(scheduler, components)
    solver.set_timesteps(steps, device=components.device)
    if hasattr(solver, "set_begin_index"):  # spares the others a look-up on the device
        solver.set_begin_index(0)
    noise_arguments = _noise_arguments(solver, generator)
    latents_1CHW = _initial_noise(components, height, width, generator) * solver.init_noise_sigma
    rows = [prompt] if negative is None or guidance <= 1 else [negative, prompt]
    text_RLD = torch.cat([row.text_1LD for row in rows])
    pooled_RP = torch.cat([row.pooled_1P for row in rows])
    ids_R6 = conditioning.time_ids(
        original_hw=(height, width), crop_top_left=(0, 0), target_hw=(height, width)
    ).to(components.device)
    ids_R6 = ids_R6.repeat(len(rows), 1)
    for timestep in solver.timesteps:
        inputs_RCHW = solver.scale_model_input(torch.cat([latents_1CHW] * len(rows)), timestep)
        predicted_RCHW = components.unet(
            inputs_RCHW,
            timestep,
            encoder_hidden_states=text_RLD,
            added_cond_kwargs={"text_embeds": pooled_RP, "time_ids": ids_R6},
        ).sample
        predicted_1CHW = _guided(predicted_RCHW, guidance)
        latents_1CHW = solver.step(
            predicted_1CHW, timestep, latents_1CHW, **noise_arguments
        ).prev_sample
        yield latents_1CHW


def _guided(predicted_RCHW: Tensor, guidance: float) -> Tensor:
    if len(predicted_RCHW) == 1:
        return predicted_RCHW
    negative_1CHW, prompt_1CHW = predicted_RCHW.chunk(2)
    return negative_1CHW + guidance * (prompt_1CHW - negative_1CHW)


def _solver(name: str, components: Components) -> Any:
    kind, changes = SCHEDULERS[name]
    return kind.from_config(components.scheduler.config, **changes)


def _noise_arguments(solver: Any, generator: torch.Generator) -> dict[str, torch.Generator]:
    """Solvers that draw noise of their own take the generator; the others have no such argument."""
    takes = "generator" in inspect.signature(solver.step).parameters
    return {"generator": generator} if takes else {}


def _initial_noise(
    components: Components, height: int, width: int, generator: torch.Generator
) -> Tensor:
    shape = (
        1,
        components.unet.config.in_channels,
        height // components.latent_factor,
        width // components.latent_factor,
    )
    return torch.randn(shape, generator=generator, dtype=components.dtype).to(components.device)
