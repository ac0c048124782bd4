"""UNets of SDXL's family: one configuration, the blocks of a layout, any widths."""

import torch
from diffusers import UNet2DConditionModel

from core.layouts import REAL_WIDTHS, Layout


def family_unet(layout: Layout, **sizes: object) -> UNet2DConditionModel:
    """With random weights. ``sizes`` are diffusers' names of what differs from base to base."""
    return UNet2DConditionModel(
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=2,
        use_linear_projection=True,
        addition_embed_type="text_time",
        **layout.unet_overrides,
        **sizes,
    )


def real_unet(layout: Layout) -> UNet2DConditionModel:
    """At real widths on the meta device: names and shapes, no memory."""
    with torch.device("meta"):
        return family_unet(
            layout,
            block_out_channels=REAL_WIDTHS,
            attention_head_dim=(5, 10, 20),  # heads of 64 channels
            norm_num_groups=32,
            cross_attention_dim=2048,
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
            sample_size=128,
        )
