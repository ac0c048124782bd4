"""One fixed question to a UNet: what it answers tells whether two are the same."""

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

ROUNDING = {torch.float32: 1e-5, torch.float16: 3e-3, torch.bfloat16: 2e-2}
"""Share of the output that two orders of the same sums may differ by, after the whole UNet."""


def probe(unet: UNet2DConditionModel) -> Tensor:
    """The output for one noisy latent in the middle of the process, float32."""
    config, generator = unet.config, torch.Generator().manual_seed(0)
    pooled_width = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(unet.device, unet.dtype)

    output_BCHW: Tensor = unet(
        normal(1, config.in_channels, config.sample_size, config.sample_size),
        torch.tensor(500, device=unet.device),
        encoder_hidden_states=normal(1, 77, config.cross_attention_dim),
        added_cond_kwargs={
            "text_embeds": normal(1, pooled_width),
            "time_ids": normal(1, 6).abs(),
        },
    ).sample
    return output_BCHW.float()
