"""UNets of SDXL's family: one configuration, the blocks of a layout, any widths."""

from diffusers import UNet2DConditionModel

from core.layouts import Layout


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
