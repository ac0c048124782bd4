"""From noise to latents, step by step.

Equal to what ``StableDiffusionXLPipeline`` and its image-to-image sister do with the same seed, but
a generator: the caller sees each step, and stops by not asking for the next. R counts what the UNet
sees: N rows, or twice as many, the negatives first.
"""

import inspect
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
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
from core.diffusion.cross_attention import text_read_once
from core.diffusion.latents import Moments
from core.specs import denoising_steps

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


@dataclass(frozen=True)
class Beginning:
    """A picture to begin with: what the VAE says of it, (1, 4, H/f, W/f), and how far to go from
    it, in (0, 1]; 1 leaves little of it. Meng et al., SDEdit, arXiv:2108.01073."""

    moments: Moments
    strength: float


@dataclass(frozen=True)
class Row:
    """One picture to be.

    ``negative``: what to steer away from; None, or ``guidance`` <= 1, skips that half of the work.
    ``guidance``: w in e = e_neg + w (e_prompt - e_neg). Ho and Salimans, arXiv:2207.12598.
    ``generator``: on the CPU, so that a seed is the same picture whatever the device.
    """

    prompt: Conditioning
    negative: Conditioning | None
    guidance: float
    generator: torch.Generator
    beginning: Beginning | None = None

    @property
    def is_guided(self) -> bool:
        return self.negative is not None and self.guidance > 1


@torch.inference_mode()
def denoise(
    components: Components,
    rows: Sequence[Row],
    *,
    scheduler: str,
    steps: int,
    height: int,
    width: int,
) -> Generator[Tensor, None, None]:
    """Yields the latents (N, 4, H/f, W/f) after each denoising step; the last are the pictures'.

    To be run to its end or closed: the UNet reads no other text until then.

    Args:
        rows: N pictures. All are guided or none; their texts are of one length; all begin with a
            picture and go as far from it, or none does.
        scheduler: a key of ``SCHEDULERS``.
        steps: denoising steps; where rows begin with a picture, the part of them that its strength
            names.
        height: of the pictures in pixels, a multiple of the latent factor.
        width: likewise.
    """
    solver, timesteps = _solver(scheduler, components, steps, _strength(rows))
    generators = [row.generator for row in rows]
    noise_arguments = _noise_arguments(solver, generators)
    latents_NCHW = _first_latents(components, rows, height, width, solver, timesteps)
    text = [row.prompt for row in rows]
    if is_guided := rows[0].is_guided:
        text = [row.negative for row in rows if row.negative] + text
    text_RLD = torch.cat([each.text_1LD for each in text])
    pooled_RP = torch.cat([each.pooled_1P for each in text])
    ids_R6 = conditioning.time_ids(
        original_hw=(height, width), crop_top_left=(0, 0), target_hw=(height, width)
    ).to(components.device)
    ids_R6 = ids_R6.repeat(len(text), 1)
    guidance = _guidance([row.guidance for row in rows], latents_NCHW)
    with text_read_once(components.unet):
        for timestep in timesteps:
            inputs_RCHW = solver.scale_model_input(
                torch.cat([latents_NCHW] * 2) if is_guided else latents_NCHW, timestep
            )
            predicted_RCHW = components.unet(
                inputs_RCHW,
                timestep,
                encoder_hidden_states=text_RLD,
                added_cond_kwargs={"text_embeds": pooled_RP, "time_ids": ids_R6},
            ).sample
            predicted_NCHW = _guided(predicted_RCHW, guidance) if is_guided else predicted_RCHW
            latents_NCHW = solver.step(
                predicted_NCHW, timestep, latents_NCHW, **noise_arguments
            ).prev_sample
            yield latents_NCHW


def _strength(rows: Sequence[Row]) -> float | None:
    beginning = rows[0].beginning
    return beginning.strength if beginning else None


def _guidance(scales: Sequence[float], like_NCHW: Tensor) -> float | Tensor:
    """One number where all rows have the same: a tensor of half precision would round it."""
    if len(set(scales)) == 1:
        return scales[0]
    return torch.tensor(scales, device=like_NCHW.device).view(-1, 1, 1, 1)


def _guided(predicted_RCHW: Tensor, guidance: float | Tensor) -> Tensor:
    negative_NCHW, prompt_NCHW = predicted_RCHW.chunk(2)
    guided_NCHW: Tensor = negative_NCHW + guidance * (prompt_NCHW - negative_NCHW)
    return guided_NCHW.to(predicted_RCHW.dtype)


def _solver(
    name: str, components: Components, steps: int, strength: float | None
) -> tuple[Any, Tensor]:
    """With the timesteps that it is to take."""
    kind, changes = SCHEDULERS[name]
    solver = kind.from_config(components.scheduler.config, **changes)
    solver.set_timesteps(steps, device=components.device)
    first = steps - denoising_steps(steps, strength)
    if hasattr(solver, "set_begin_index"):  # spares the others a look-up on the device
        solver.set_begin_index(first)
    return solver, solver.timesteps[first:]


def _noise_arguments(
    solver: Any, generators: Sequence[torch.Generator]
) -> dict[str, Sequence[torch.Generator]]:
    """Solvers that draw noise of their own take generators; the others have no such argument."""
    takes = "generator" in inspect.signature(solver.step).parameters
    return {"generator": list(generators)} if takes else {}


def _first_latents(
    components: Components,
    rows: Sequence[Row],
    height: int,
    width: int,
    solver: Any,
    timesteps: Tensor,
) -> Tensor:
    factor = components.latent_factor
    shape = (1, components.unet.config.in_channels, height // factor, width // factor)
    starts = [_start(row, shape, components) for row in rows]
    noise_NCHW = torch.cat([_noise(shape, row.generator, components) for row in rows])
    if rows[0].beginning is None:
        scaled_NCHW: Tensor = noise_NCHW * solver.init_noise_sigma
        return scaled_NCHW
    starts_NCHW = torch.cat([start for start in starts if start is not None])
    noisy_NCHW: Tensor = solver.add_noise(starts_NCHW, noise_NCHW, timesteps[:1])
    return noisy_NCHW


def _start(row: Row, shape: tuple[int, ...], components: Components) -> Tensor | None:
    """A latent of the picture to begin with. Its noise is drawn first, as the pipeline does."""
    if row.beginning is None:
        return None
    noise_1CHW = _noise(shape, row.generator, components)
    start_1CHW = row.beginning.moments.sample(noise_1CHW.float())
    return start_1CHW.to(components.dtype)


def _noise(shape: tuple[int, ...], generator: torch.Generator, components: Components) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=components.dtype).to(components.device)
