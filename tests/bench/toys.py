"""Bases of toy widths whose parts cost what SDXL's VAE and text encoders and SSD-1B's UNet do to
each other: so a bench that runs in a minute tells of the real ones.

The real costs, in GFLOP, were counted on meta tensors: of one picture, and of one caption.
"""

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextModelWithProjection

from core import bases
from core.diffusion.components import Components
from core.diffusion.unets import family_unet
from core.layouts import SSD_1B, Layout


@dataclass(frozen=True)
class Costs:
    """Of the VAE's encoding and of both text encoders, in forward passes of the UNet."""

    encode: float
    text: float


AT_1024 = Costs(encode=4879 / 4208, text=111 / 4208)
AT_256 = Costs(encode=273 / 257, text=111 / 257)


def save(
    folder: Path,
    *,
    side: int,
    vae_widths: tuple[int, ...],
    text_width: int,
    text_layers: int,
    layout: Layout = SSD_1B,
    widths: tuple[int, int, int] = (64, 96, 128),
) -> None:
    """A VAE that halves three times, nano-sdxl's first text encoder and words.

    Args:
        side: native, in pixels.
        vae_widths: channels of its four levels.
        text_width, text_layers: of the second text encoder.
        layout, widths: of the UNet; its heads have 32 channels.
    """
    torch.manual_seed(1)
    nano = StableDiffusionXLPipeline.from_pretrained(bases.NANO_SDXL)
    config = nano.text_encoder_2.config
    config.hidden_size, config.intermediate_size = text_width, 4 * text_width
    config.num_hidden_layers, config.projection_dim = text_layers, text_width
    config.num_attention_heads = text_width // 16
    unet = family_unet(
        layout,
        block_out_channels=widths,
        attention_head_dim=tuple(width // 32 for width in widths),
        norm_num_groups=8,
        cross_attention_dim=nano.text_encoder.config.hidden_size + text_width,
        addition_time_embed_dim=16,
        projection_class_embeddings_input_dim=6 * 16 + text_width,
        sample_size=side // 8,
    )
    vae = AutoencoderKL(
        block_out_channels=vae_widths,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=side,
        scaling_factor=0.13025,
        force_upcast=False,
    )
    parts: dict[str, Any] = {
        "unet": unet,
        "vae": vae,
        "text_encoder_2": CLIPTextModelWithProjection(config),
    }
    StableDiffusionXLPipeline(
        **{**nano.components, **parts}, force_zeros_for_empty_prompt=True, add_watermarker=False
    ).save_pretrained(folder)


def costs(components: Components, side: int) -> Costs:
    """Counted on the meta device, where attention is two products that the counter knows."""
    cells = side // components.latent_factor
    counted: list[Any] = [
        components.vae,
        components.unet,
        components.text_encoder,
        components.text_encoder_2,
    ]
    vae, unet, *encoders = (deepcopy(part).to("meta") for part in counted)
    with torch.device("meta"):
        forward = _flops(
            unet,
            torch.zeros(1, 4, cells, cells),
            torch.zeros(()),
            encoder_hidden_states=torch.zeros(1, 77, unet.config.cross_attention_dim),
            added_cond_kwargs={
                "text_embeds": torch.zeros(1, components.pooled_width),
                "time_ids": torch.zeros(1, 6),
            },
        )
        encode = _flops(vae.encode, torch.zeros(1, 3, side, side))
        words = torch.zeros(1, 77, dtype=torch.long)
        text = sum(_flops(encoder, words) for encoder in encoders)
    return Costs(encode / forward, text / forward)


@torch.no_grad()
def _flops(module: Any, *inputs: Any, **named: Any) -> int:
    with FlopCounterMode(display=False) as counter:
        module(*inputs, **named)
    return int(counter.get_total_flops())
