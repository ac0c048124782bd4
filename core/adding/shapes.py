"""Every tensor that a part of a pipeline has, and its shape, told from the part's configuration.

Names are those of diffusers and transformers, as they stand in published folders.
"""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from core.layouts import Layout
from core.originals import JOINED, WRAPPER

Shape = tuple[int, ...]
Shapes = Iterator[tuple[str, Shape]]
Config = Mapping[str, Any]


def unet(config: Config, layout: Layout) -> dict[str, Shape]:
    """With two ResNets a level on the way down and three on the way up."""
    return dict(_unet(config, layout))


def vae(config: Config) -> dict[str, Shape]:
    return dict(_vae(config))


def text_encoder(config: Config) -> dict[str, Shape]:
    """The projection included, where the model has one."""
    return dict(_text_encoder(config))


def _unet(config: Config, layout: Layout) -> Shapes:
    widths, text = config["block_out_channels"], config["cross_attention_dim"]
    first, last = widths[0], widths[-1]
    embedded = 4 * first
    yield from _linear("time_embedding.linear_1", first, embedded)
    yield from _linear("time_embedding.linear_2", embedded, embedded)
    pooled = config["projection_class_embeddings_input_dim"]
    yield from _linear("add_embedding.linear_1", pooled, embedded)
    yield from _linear("add_embedding.linear_2", embedded, embedded)
    yield from _conv("conv_in", config["in_channels"], first)
    yield from _norm("conv_norm_out", first)
    yield from _conv("conv_out", first, config["out_channels"])
    skips = [first]
    for level, (width, depths) in enumerate(zip(widths, layout.down, strict=True)):
        block = f"down_blocks.{level}"
        for place in range(2):
            yield from _resnet(f"{block}.resnets.{place}", skips[-1], width, embedded)
            skips.append(width)
        yield from _transformers(block, depths, width, text)
        if width != last:
            yield from _conv(f"{block}.downsamplers.0.conv", width, width)
            skips.append(width)
    yield from _resnet("mid_block.resnets.0", last, last, embedded)
    if layout.mid is not None:
        yield from _transformers("mid_block", (layout.mid,), last, text)
        yield from _resnet("mid_block.resnets.1", last, last, embedded)
    inner = last
    for level, (width, depths) in enumerate(zip(reversed(widths), layout.up, strict=True)):
        block = f"up_blocks.{level}"
        for place in range(3):
            resnet = f"{block}.resnets.{place}"
            yield from _resnet(resnet, inner + skips.pop(), width, embedded)
            inner = width
        yield from _transformers(block, depths, width, text)
        if width != first:
            yield from _conv(f"{block}.upsamplers.0.conv", width, width)


def _transformers(block: str, depths: tuple[int, ...], width: int, text: int) -> Shapes:
    for place, depth in enumerate(depths):
        module = f"{block}.attentions.{place}"
        yield from _norm(f"{module}.norm", width)
        yield from _linear(f"{module}.proj_in", width, width)
        for at in range(depth):
            yield from _transformer_block(f"{module}.transformer_blocks.{at}", width, text)
        yield from _linear(f"{module}.proj_out", width, width)


def _transformer_block(block: str, width: int, text: int) -> Shapes:
    for name in ("norm1", "norm2", "norm3"):
        yield from _norm(f"{block}.{name}", width)
    for attention, read in (("attn1", width), ("attn2", text)):
        yield f"{block}.{attention}.to_q.weight", (width, width)
        yield f"{block}.{attention}.to_k.weight", (width, read)
        yield f"{block}.{attention}.to_v.weight", (width, read)
        yield from _linear(f"{block}.{attention}.to_out.0", width, width)
    yield from _linear(f"{block}.ff.net.0.proj", width, 8 * width)
    yield from _linear(f"{block}.ff.net.2", 4 * width, width)


def _vae(config: Config) -> Shapes:
    widths, resnets = config["block_out_channels"], config["layers_per_block"]
    latent, last = config["latent_channels"], widths[-1]
    yield from _conv("encoder.conv_in", config["in_channels"], widths[0])
    down = [widths[0], *widths]
    yield from _vae_levels("encoder.down_blocks", down, resnets, "downsamplers")
    yield from _vae_ends("encoder", last, last, 2 * latent)
    yield from _conv("quant_conv", 2 * latent, 2 * latent, 1)
    yield from _conv("post_quant_conv", latent, latent, 1)
    yield from _conv("decoder.conv_in", latent, last)
    up = [last, *reversed(widths)]
    yield from _vae_levels("decoder.up_blocks", up, resnets + 1, "upsamplers")
    yield from _vae_ends("decoder", last, widths[0], config["out_channels"])


def _vae_levels(blocks: str, widths: list[int], resnets: int, sampler: str) -> Shapes:
    """``widths`` before the first level and after each; all levels but the last end in another
    size."""
    levels = len(widths) - 1
    for level, (inner, width) in enumerate(pairwise(widths)):
        for place in range(resnets):
            before = width if place else inner
            yield from _resnet(f"{blocks}.{level}.resnets.{place}", before, width)
        if level < levels - 1:
            yield from _conv(f"{blocks}.{level}.{sampler}.0.conv", width, width)


def _vae_ends(half: str, middle: int, last: int, channels: int) -> Shapes:
    for place in range(2):
        yield from _resnet(f"{half}.mid_block.resnets.{place}", middle, middle)
    attention = f"{half}.mid_block.attentions.0"
    yield from _norm(f"{attention}.group_norm", middle)
    for name in ("to_q", "to_k", "to_v", "to_out.0"):
        yield from _linear(f"{attention}.{name}", middle, middle)
    yield from _norm(f"{half}.conv_norm_out", last)
    yield from _conv(f"{half}.conv_out", last, channels)


def _text_encoder(config: Config) -> Shapes:
    width, inner = config["hidden_size"], config["intermediate_size"]
    yield f"{WRAPPER}embeddings.token_embedding.weight", (config["vocab_size"], width)
    positions = config["max_position_embeddings"]
    yield f"{WRAPPER}embeddings.position_embedding.weight", (positions, width)
    for at in range(config["num_hidden_layers"]):
        layer = f"{WRAPPER}encoder.layers.{at}"
        for name in ("layer_norm1", "layer_norm2"):
            yield from _norm(f"{layer}.{name}", width)
        for name in (*JOINED, "self_attn.out_proj"):
            yield from _linear(f"{layer}.{name}", width, width)
        yield from _linear(f"{layer}.mlp.fc1", width, inner)
        yield from _linear(f"{layer}.mlp.fc2", inner, width)
    yield from _norm(f"{WRAPPER}final_layer_norm", width)
    if config["architectures"] == ["CLIPTextModelWithProjection"]:
        yield "text_projection.weight", (config["projection_dim"], width)


def _resnet(name: str, inner: int, outer: int, embedded: int | None = None) -> Shapes:
    yield from _norm(f"{name}.norm1", inner)
    yield from _conv(f"{name}.conv1", inner, outer)
    if embedded:
        yield from _linear(f"{name}.time_emb_proj", embedded, outer)
    yield from _norm(f"{name}.norm2", outer)
    yield from _conv(f"{name}.conv2", outer, outer)
    if inner != outer:
        yield from _conv(f"{name}.conv_shortcut", inner, outer, 1)


def _conv(name: str, inner: int, outer: int, side: int = 3) -> Shapes:
    yield f"{name}.weight", (outer, inner, side, side)
    yield f"{name}.bias", (outer,)


def _linear(name: str, inner: int, outer: int) -> Shapes:
    yield f"{name}.weight", (outer, inner)
    yield f"{name}.bias", (outer,)


def _norm(name: str, width: int) -> Shapes:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)
