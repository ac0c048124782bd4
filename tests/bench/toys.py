"""A base of toy widths whose VAE and UNet cost what SDXL's and SSD-1B's do to each other."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline
from torch.utils.flop_counter import FlopCounterMode

from core import bases
from core.diffusion.components import Components
from core.diffusion.unets import family_unet
from core.layouts import SSD_1B

SIDE = 256  # pixels
ENCODE_TO_FORWARD = 4.88 / 4.21
"""TFLOP of SDXL's VAE encoding 1024 x 1024 pixels, and of one forward pass of SSD-1B's UNet on the
latents: counted on meta tensors."""


def save(folder: Path) -> None:
    """SSD-1B's layout with nano-sdxl's text encoders, and a VAE that halves three times."""
    torch.manual_seed(1)
    nano = StableDiffusionXLPipeline.from_pretrained(bases.NANO_SDXL)
    text_width, pooled_width = nano.unet.config.cross_attention_dim, 80
    unet = family_unet(
        SSD_1B,
        block_out_channels=(64, 96, 128),
        attention_head_dim=(2, 3, 4),
        norm_num_groups=8,
        cross_attention_dim=text_width,
        addition_time_embed_dim=16,
        projection_class_embeddings_input_dim=6 * 16 + pooled_width,
        sample_size=SIDE // 8,
    )
    vae = AutoencoderKL(
        block_out_channels=(16, 40, 64, 64),
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=SIDE,
        scaling_factor=0.13025,
        force_upcast=False,
    )
    parts = {**nano.components, "unet": unet, "vae": vae}
    StableDiffusionXLPipeline(
        **parts, force_zeros_for_empty_prompt=True, add_watermarker=False
    ).save_pretrained(folder)


def encode_to_forward(components: Components, side: int) -> float:
    """FLOPs of the VAE's encoding one picture, over those of the UNet on its latents."""
    with torch.no_grad(), FlopCounterMode(display=False) as encode:
        components.vae.encode(torch.zeros(1, 3, side, side))
    cells = side // components.latent_factor
    with torch.no_grad(), FlopCounterMode(display=False) as forward:
        components.unet(
            torch.zeros(1, 4, cells, cells),
            torch.zeros(()),
            encoder_hidden_states=torch.zeros(1, 77, components.unet.config.cross_attention_dim),
            added_cond_kwargs={
                "text_embeds": torch.zeros(1, components.pooled_width),
                "time_ids": torch.zeros(1, 6),
            },
        )
    return float(encode.get_total_flops() / forward.get_total_flops())
