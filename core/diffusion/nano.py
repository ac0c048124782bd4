"""The nano pair: whole SDXL and SSD-1B pipelines at toy widths, built here from a seed.

Same blocks, same files, same classes as the real ones, so every path runs in seconds on a CPU with
nothing to download; the weights are random.
"""

import os
import shutil
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from core.files.atomic import sync
from core.layouts import LAYOUTS, NANO_WIDTHS, REAL_WIDTHS, Layout

SEED = 20231107
"""One for both layouts; any would do."""
REAL_HEADS = (5, 10, 20)  # of 64 channels
HEADS = (2, 3, 4)  # of 16 channels
GROUPS = 8
"""Of the group norms: 4 channels a group at the narrowest level; with fewer, a group's statistics
erase what its channels say."""
TIME_ID_WIDTH = 16
VAE_WIDTHS = (16, 32, 64)
"""Three levels: a latent stands for 4 x 4 pixels."""
VAE_GROUPS = 4  # 4 channels a group
VAE_GAIN = 1 / (0.13025 * 0.3)
"""The encoder's outputs vary by about 0.3; SDXL's scaling factor then makes that 1."""
VAE_LOG_VARIANCE = -10.0
"""A deviation of 0.007 of what then varies by 8: SDXL's too is as good as none."""
LATENT_SIDE = 16
"""Times 4: a native size of 64 px."""
TEXT_WIDTHS = (32, 48)
"""Of the two text encoders; unlike each other, as SDXL's 768 and 1280."""
TEXT_LAYERS = 3
"""SDXL reads ``hidden_states[-2]``; with three layers that is neither the input nor the output."""
TEXT_TOKENS = 77
"""Longest prompt, start and end included: CLIP's."""
PADDING = ("<|endoftext|>", "!")
"""What SDXL's first and second tokenizer fill up with."""


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


def real_unet(layout: Layout) -> UNet2DConditionModel:
    """The UNet at real widths on the meta device: names and shapes, no memory."""
    with torch.device("meta"):
        return _unet(
            layout,
            block_out_channels=REAL_WIDTHS,
            attention_head_dim=REAL_HEADS,
            norm_num_groups=32,
            cross_attention_dim=2048,
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
            sample_size=128,
        )


def _pipeline(layout: Layout) -> StableDiffusionXLPipeline:
    # Seeded part by part, so the pair shares everything but the UNet whatever each part draws.
    tokenizers = [_tokenizer(pad) for pad in PADDING]
    torch.manual_seed(SEED)
    text_encoder = CLIPTextModel(_text_config(TEXT_WIDTHS[0], tokenizers[0]))
    torch.manual_seed(SEED + 1)
    text_encoder_2 = CLIPTextModelWithProjection(_text_config(TEXT_WIDTHS[1], tokenizers[1]))
    torch.manual_seed(SEED + 2)
    vae = _vae()
    torch.manual_seed(SEED + 3)
    unet = _nano_unet(layout)
    return StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=text_encoder,
        text_encoder_2=text_encoder_2,
        tokenizer=tokenizers[0],
        tokenizer_2=tokenizers[1],
        unet=unet,
        scheduler=_scheduler(),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )


def _tokenizer(pad: str) -> CLIPTokenizer:
    """CLIP's byte-level BPE with no merges: one token a byte, so any text has its tokens."""
    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", PADDING[0]]
    vocab = {token: number for number, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=[], pad_token=pad, model_max_length=TEXT_TOKENS)


def _text_config(width: int, tokenizer: CLIPTokenizer) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=TEXT_LAYERS,
        num_attention_heads=width // 16,
        max_position_embeddings=TEXT_TOKENS,
        projection_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        # Not 2, which is the id at which transformers pools at the largest token id instead.
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _vae() -> AutoencoderKL:
    vae = AutoencoderKL(
        block_out_channels=VAE_WIDTHS,
        down_block_types=["DownEncoderBlock2D"] * len(VAE_WIDTHS),
        up_block_types=["UpDecoderBlock2D"] * len(VAE_WIDTHS),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=VAE_GROUPS,
        sample_size=LATENT_SIDE * 4,
        scaling_factor=0.13025,
        force_upcast=False,
    )
    _sharpen(vae)
    return vae


def _sharpen(vae: AutoencoderKL) -> None:
    """Latents of unit size that tell pictures apart.

    As drawn, the last layer says nearly the same of every picture and drowns it in noise.
    """
    with torch.no_grad():
        mean = vae.quant_conv.weight.zero_()[: vae.config.latent_channels, :, 0, 0]
        mean.fill_diagonal_(VAE_GAIN)
        vae.quant_conv.bias.zero_()[len(mean) :] = VAE_LOG_VARIANCE


def _nano_unet(layout: Layout) -> UNet2DConditionModel:
    return _unet(
        layout,
        block_out_channels=NANO_WIDTHS,
        attention_head_dim=HEADS,
        norm_num_groups=GROUPS,
        cross_attention_dim=sum(TEXT_WIDTHS),
        addition_time_embed_dim=TIME_ID_WIDTH,
        projection_class_embeddings_input_dim=6 * TIME_ID_WIDTH + TEXT_WIDTHS[1],
        sample_size=LATENT_SIDE,
    )


def _unet(layout: Layout, **sizes: object) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=2,
        use_linear_projection=True,
        addition_embed_type="text_time",
        **layout.unet_overrides,
        **sizes,
    )


def _scheduler() -> EulerDiscreteScheduler:
    """SDXL's: epsilon, scaled linear betas."""
    return EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="leading",
        steps_offset=1,
    )
