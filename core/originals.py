"""What modules are called in Stability's original code, ``generative-models``, and in
``open_clip``, from which the second text encoder is: the names of checkpoints that are one file.

Tables pair them with ours, those of diffusers and transformers; what is in none is refused.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from core.errors import LayoutMismatch
from core.layouts import ATTENTION_TARGETS

UNET_PREFIX = "model.diffusion_model."
VAE_PREFIX = "first_stage_model."
TEXT_PREFIX = "conditioner.embedders.0.transformer.text_model."
TEXT_2_PREFIX = "conditioner.embedders.1.model."
WRAPPER = "text_model."
"""Before the names of a text encoder's modules; from transformers 5.6 on the first has none."""

VELOCITY, ZERO_SNR = "v_pred", "ztsnr"
"""Tensors of no elements: ComfyUI looks for their names, not at the metadata."""
PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v"}
"""diffusers' words for what a UNet predicts, and modelspec's."""

_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_TRANSFORMER_BLOCK = (
    *("norm1", "norm2", "norm3", "ff.net.0.proj", "ff.net.2"),
    *(f"{attention}.{layer}" for attention in ("attn1", "attn2") for layer in ATTENTION_TARGETS),
)
_TRANSFORMER = (
    *("norm", "proj_in", "proj_out"),
    *(f"transformer_blocks.{at}.{layer}" for at in range(10) for layer in _TRANSFORMER_BLOCK),
)
_UNET_LAYERS = {**_RESNET, **{name: name for name in _TRANSFORMER}}
_VAE_LAYERS = {
    **{name: name for name in ("norm1", "conv1", "norm2", "conv2")},
    "conv_shortcut": "nin_shortcut",
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
_TEXT_LAYERS = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
JOINED = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
"""One matrix in ``open_clip``, in this order."""


@dataclass(frozen=True)
class Names:
    """Of one part. ``blocks`` holds modules with ``layers`` in them, and layers that stand alone:
    our names and the original ones."""

    blocks: Mapping[str, str]
    layers: Mapping[str, str]

    def of(self, key: str) -> str:
        """The original name of our tensor. Raises LayoutMismatch; names it."""
        module, _, kind = key.rpartition(".")
        if module in self.blocks:
            return f"{self.blocks[module]}.{kind}"
        for block, theirs in self.blocks.items():
            layer = module.removeprefix(f"{block}.")
            if layer != module and layer in self.layers:
                return f"{theirs}.{self.layers[layer]}.{kind}"
        raise LayoutMismatch(f"`{key}` is of no module whose name in the original code is known.")


def vae(levels: int, resnets: int) -> Names:
    """``resnets`` of a level of the decoder."""
    return Names(dict(_vae_blocks(levels, resnets)), _VAE_LAYERS)


def text(depth: int) -> Names:
    """Of the first encoder, without wrapper: in the original it is transformers' own."""
    blocks, layers = dict(_text_blocks(depth)), (*_TEXT_LAYERS, *JOINED)
    return Names({name: name for name in blocks}, {name: name for name in layers})


def text_2(depth: int) -> Names:
    """Of the second encoder, without wrapper and but for what ``open_clip`` keeps otherwise: the
    projection, the positions, what is joined."""
    return Names(dict(_text_blocks(depth)), _TEXT_LAYERS)


def joined(at: int, kind: str) -> str:
    """What the ``JOINED`` of layer ``at`` are together. ``kind`` is weight or bias."""
    return f"transformer.resblocks.{at}.attn.in_proj_{kind}"


TEXT_2_PROJECTION = "text_projection"
"""Transposed: it stands on the right of what it is multiplied with."""
TEXT_2_POSITIONS = "positional_embedding"


def _unet_blocks() -> Iterator[tuple[str, str]]:
    """Nine blocks down, the first of them a convolution, and nine up, three a level."""
    yield from _ENDS.items()
    for level in range(3):
        down, up, first = f"down_blocks.{level}", f"up_blocks.{level}", 3 * level
        for place in range(2):
            yield f"{down}.resnets.{place}", f"input_blocks.{first + place + 1}.0"
            yield f"{down}.attentions.{place}", f"input_blocks.{first + place + 1}.1"
        yield f"{down}.downsamplers.0.conv", f"input_blocks.{first + 3}.0.op"
        for place in range(3):
            yield f"{up}.resnets.{place}", f"output_blocks.{first + place}.0"
            yield f"{up}.attentions.{place}", f"output_blocks.{first + place}.1"
        yield f"{up}.upsamplers.0.conv", f"output_blocks.{first + 2}.2.conv"
    for place, part in enumerate(("resnets.0", "attentions.0", "resnets.1")):
        yield f"mid_block.{part}", f"middle_block.{place}"


UNET = Names(dict(_unet_blocks()), _UNET_LAYERS)


def _vae_blocks(levels: int, resnets: int) -> Iterator[tuple[str, str]]:
    """The original counts the decoder's levels from the picture, diffusers from the latents. An
    encoder's level has one of the ``resnets`` fewer."""
    for name in ("quant_conv", "post_quant_conv"):
        yield name, name
    for half in ("encoder", "decoder"):
        for name in ("conv_in", "conv_out"):
            yield f"{half}.{name}", f"{half}.{name}"
        yield f"{half}.conv_norm_out", f"{half}.norm_out"
        yield f"{half}.mid_block.resnets.0", f"{half}.mid.block_1"
        yield f"{half}.mid_block.attentions.0", f"{half}.mid.attn_1"
        yield f"{half}.mid_block.resnets.1", f"{half}.mid.block_2"
    for level in range(levels):
        down, up = f"encoder.down.{level}", f"decoder.up.{levels - 1 - level}"
        for place in range(resnets):
            yield f"encoder.down_blocks.{level}.resnets.{place}", f"{down}.block.{place}"
            yield f"decoder.up_blocks.{level}.resnets.{place}", f"{up}.block.{place}"
        yield f"encoder.down_blocks.{level}.downsamplers.0.conv", f"{down}.downsample.conv"
        yield f"decoder.up_blocks.{level}.upsamplers.0.conv", f"{up}.upsample.conv"


def _text_blocks(depth: int) -> Iterator[tuple[str, str]]:
    yield "embeddings.token_embedding", "token_embedding"
    yield "embeddings.position_embedding", "positional_embedding"
    yield "final_layer_norm", "ln_final"
    for at in range(depth):
        yield f"encoder.layers.{at}", f"transformer.resblocks.{at}"
