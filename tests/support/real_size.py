"""SDXL's parts at their real sizes, with random weights: for names, shapes, bytes and times.

On whatever device and in whatever dtype torch makes tensors: under ``torch.device("meta")`` they
cost nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from core.layouts import Layout

TEXT_WIDTH = 2048
POOLED_WIDTH = 1280


def unet(layout: Layout) -> Any:
    from core.diffusion.unets import family_unet
    from core.layouts import REAL_WIDTHS

    return family_unet(
        layout,
        block_out_channels=REAL_WIDTHS,
        attention_head_dim=(5, 10, 20),  # heads of 64 channels
        norm_num_groups=32,
        cross_attention_dim=TEXT_WIDTH,
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=6 * 256 + POOLED_WIDTH,
        sample_size=128,
    )


def vae() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        layers_per_block=2,
        latent_channels=4,
        sample_size=1024,
        scaling_factor=0.13025,
        force_upcast=False,
    )


def text_encoders() -> tuple[Any, Any]:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    first = CLIPTextConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        projection_dim=768,
    )
    second = CLIPTextConfig(
        hidden_size=1280,
        intermediate_size=5120,
        num_hidden_layers=32,
        num_attention_heads=20,
        projection_dim=POOLED_WIDTH,
        hidden_act="gelu",
    )
    return CLIPTextModel(first), CLIPTextModelWithProjection(second)
