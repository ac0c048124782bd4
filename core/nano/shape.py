"""Whole SDXL and SSD-1B pipelines at toy widths: the same blocks, files and classes."""

from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from core.diffusion.unets import family_unet
from core.layouts import NANO_WIDTHS, Layout
from core.nano import tokens
from core.nano.tokens import Merge

HEADS = (2, 3, 4)  # of 16 channels
GROUPS = 8
"""Of the group norms: 4 channels a group at the narrowest level; with fewer, a group's statistics
erase what its channels say."""
TIME_ID_WIDTH = 16
VAE_WIDTHS = (16, 32, 64)
"""Three levels: a latent stands for 4 x 4 pixels."""
VAE_GROUPS = 4  # 4 channels a group
SCALING_FACTOR = 0.13025
"""SDXL's: the latents that the VAE gives times this are of about unit size."""
VAE_LOG_VARIANCE = -10.0
"""Of a latent: a deviation of 0.007 of what varies by 8. SDXL's too is as good as none."""
LATENT_SIDE = 16
"""Times 4: a native size of 64 px."""
TEXT_WIDTHS = (48, 80)
"""Of the two text encoders; unlike each other, as SDXL's 768 and 1280."""
TEXT_LAYERS = 3
"""SDXL reads ``hidden_states[-2]``; with three layers that is neither the input nor the output."""


def pipeline(layout: Layout, merges: list[Merge]) -> StableDiffusionXLPipeline:
    """A pipeline with random weights, drawn from torch's global generator."""
    first, second = (tokens.tokenizer(merges, pad) for pad in tokens.PADDING)
    return StableDiffusionXLPipeline(
        vae=vae(),
        text_encoder=CLIPTextModel(_text_config(TEXT_WIDTHS[0], first)),
        text_encoder_2=CLIPTextModelWithProjection(_text_config(TEXT_WIDTHS[1], second)),
        tokenizer=first,
        tokenizer_2=second,
        unet=unet(layout),
        scheduler=_scheduler(),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )


def vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=VAE_WIDTHS,
        down_block_types=["DownEncoderBlock2D"] * len(VAE_WIDTHS),
        up_block_types=["UpDecoderBlock2D"] * len(VAE_WIDTHS),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=VAE_GROUPS,
        sample_size=LATENT_SIDE * 4,
        scaling_factor=SCALING_FACTOR,
        force_upcast=False,
    )


def unet(layout: Layout) -> UNet2DConditionModel:
    return family_unet(
        layout,
        block_out_channels=NANO_WIDTHS,
        attention_head_dim=HEADS,
        norm_num_groups=GROUPS,
        cross_attention_dim=sum(TEXT_WIDTHS),
        addition_time_embed_dim=TIME_ID_WIDTH,
        projection_class_embeddings_input_dim=6 * TIME_ID_WIDTH + TEXT_WIDTHS[1],
        sample_size=LATENT_SIDE,
    )


def _text_config(width: int, tokenizer: CLIPTokenizer) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=TEXT_LAYERS,
        num_attention_heads=width // 16,
        max_position_embeddings=tokens.LENGTH,
        projection_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        # Not 2, which is the id at which transformers pools at the largest token id instead.
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
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
