"""The nano pair with random weights: folders that SDXL's pipeline loads, made here from a seed.

Every path runs in seconds on a CPU with nothing to download; nothing has been learnt yet.
"""

import os
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline

from core.files.atomic import sync
from core.layouts import LAYOUTS, SDXL, Layout
from core.nano import shape

SEED = 20231107
"""Any would do."""
VAE_GAIN = 1 / (shape.SCALING_FACTOR * 0.3)
"""The encoder's outputs vary by about 0.3; SDXL's scaling factor then makes that 1."""


def build(layout_id: str, folder: Path) -> None:
    """Writes the pipeline folder of ``nano-<layout_id>``, the same bytes each time.

    Written beside ``folder`` and renamed, so a folder that exists is whole; where one exists, or
    another process is faster, that one stays.

    Args:
        layout_id: a key of ``LAYOUTS``.
        folder: what ``StableDiffusionXLPipeline.from_pretrained`` is to load.
    """
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        with torch.random.fork_rng(devices=[]):
            _pipeline(LAYOUTS[layout_id]).save_pretrained(aside)
        for path in [*aside.rglob("*"), aside]:
            sync(path)
        _rename_unless_there(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _rename_unless_there(aside: Path, folder: Path) -> None:
    try:
        aside.rename(folder)
    except OSError:
        if not (folder / "model_index.json").exists():
            raise
    sync(folder.parent)


def _pipeline(layout: Layout) -> StableDiffusionXLPipeline:
    # all of nano-sdxl and then another UNet: the pair shares everything else
    torch.manual_seed(SEED)
    pipeline = shape.pipeline(SDXL, merges=[])
    _sharpen(pipeline.vae)
    if layout is not SDXL:
        pipeline.register_modules(unet=shape.unet(layout))
    return pipeline


def _sharpen(vae: AutoencoderKL) -> None:
    """Latents of unit size that tell pictures apart.

    As drawn, the last layer says nearly the same of every picture and drowns it in noise.
    """
    with torch.no_grad():
        mean = vae.quant_conv.weight.zero_()[: vae.config.latent_channels, :, 0, 0]
        mean.fill_diagonal_(VAE_GAIN)
        vae.quant_conv.bias.zero_()[len(mean) :] = shape.VAE_LOG_VARIANCE
