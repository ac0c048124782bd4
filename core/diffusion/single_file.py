"""A whole pipeline in one file of halves: the checkpoint that ComfyUI, A1111 and
``from_single_file`` of diffusers read.

Modules go by their names in Stability's original code, ``generative-models``, and in ``open_clip``,
from which the second text encoder is. Tables pair them, and what is in none of them is refused.
"""

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from core.diffusion.components import Components
from core.diffusion.unet_folder import WEIGHTS as UNET_WEIGHTS
from core.errors import ExportMismatch, LayoutMismatch
from core.files.atomic import replacing
from core.files.safetensors_header import METADATA
from core.layouts import ATTENTION_TARGETS, Layout

UNET_PREFIX = "model.diffusion_model."
_VAE_PREFIX = "first_stage_model."
_TEXT_PREFIX = "conditioner.embedders.0.transformer.text_model."
_TEXT_2_PREFIX = "conditioner.embedders.1.model."
_WRAPPER = "text_model."
"""Before the names of a text encoder's modules; from transformers 5.6 on the first has none."""

_VELOCITY, _ZERO_SNR = "v_pred", "ztsnr"
"""Tensors of no elements: ComfyUI looks for their names, not at the metadata."""
_PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v"}
"""diffusers' words for what a UNet predicts, and modelspec's."""

_HASH = "modelspec.hash_sha256"

Names = Mapping[str, str]
"""diffusers' or transformers' name of a module, and the original."""

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
_JOINED = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
"""One matrix in ``open_clip``, in this order."""


def file_name(layout: Layout) -> str:
    """``ssd1b.safetensors``."""
    return f"{_short(layout)}.safetensors"


def write(
    path: Path, unet: Mapping[str, Tensor], components: Components, *, layout: Layout, side: int
) -> None:
    """The file whole or not at all; the same bytes for the same tensors.

    Beyond what is there already, memory holds one tensor in half precision and the joined
    attention weights of the second text encoder.

    Args:
        path: of the file.
        unet: tensors by diffusers' keys; any floating dtype, any device.
        components: of the base, whose VAE, text encoders and prediction type go with the UNet.
            The base's own UNet may be of another layout.
        layout: of ``unet``.
        side: pixels a side that it was trained at.

    Raises:
        LayoutMismatch: ``unet`` is not the base's UNet in ``layout``, or a part of the base has a
            key of no known module; names it.
    """
    _check(unet, components.unet, layout)
    tensors = arrange(unet, components)
    scheduler = components.scheduler.config
    if scheduler.prediction_type == "v_prediction":
        tensors[_VELOCITY] = torch.empty(0)
    if scheduler.rescale_betas_zero_snr:
        tensors[_ZERO_SNR] = torch.empty(0)
    metadata = {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "stable-diffusion-xl-v1-base",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.title": f"stillroom-{_short(layout)}",
        "modelspec.resolution": f"{side}x{side}",
        "modelspec.prediction_type": _PREDICTIONS[scheduler.prediction_type],
        "stillroom.layout": layout.id,
    }
    with replacing(path) as aside:
        _save(aside, dict(sorted(tensors.items())), metadata)


def check(path: Path, folder: Path) -> None:
    """Reads the file's UNet with diffusers and compares it with that of a folder, bit by bit.

    Raises:
        ExportMismatch: they differ; names the key.
    """
    read = UNet2DConditionModel.from_single_file(
        str(path),
        config=str(folder.parent),
        subfolder=folder.name,
        local_files_only=True,
    ).state_dict()
    for key, half in load_file(folder / UNET_WEIGHTS).items():
        if not torch.equal(read[key].half(), half):
            raise ExportMismatch(f"{path.name}, read by diffusers, has another `{key}`")


def arrange(unet: Mapping[str, Tensor], components: Components) -> dict[str, Tensor]:
    """The tensors of the whole pipeline by their keys in the file, in their own dtypes.

    Views wherever they can be: all but the joined attention weights.

    Raises:
        LayoutMismatch: a key is of no known module; names it.
    """
    parts = {
        UNET_PREFIX: ((unet_key(key), tensor) for key, tensor in unet.items()),
        _VAE_PREFIX: _vae(components.vae),
        _TEXT_PREFIX: _text(components.text_encoder),
        _TEXT_2_PREFIX: _text_2(components.text_encoder_2),
    }
    return {prefix + key: tensor for prefix, part in parts.items() for key, tensor in part}


def unet_key(key: str) -> str:
    """``down_blocks.1.resnets.0.conv1.bias`` is ``input_blocks.4.0.in_layers.2.bias``.

    Raises:
        LayoutMismatch: it is of no module that a UNet of the family has; names it.
    """
    return _rename(key, _UNET_BLOCKS, _UNET_LAYERS)


def _check(unet: Mapping[str, Tensor], own: UNet2DConditionModel, layout: Layout) -> None:
    with torch.device("meta"):
        model = UNet2DConditionModel.from_config({**own.config, **layout.unet_overrides})
    expected = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    found = {key: tuple(tensor.shape) for key, tensor in unet.items()}
    for key in sorted(expected.keys() | found.keys()):
        if key not in expected:
            raise LayoutMismatch(f"`{key}` is no key of a UNet of {layout.id}.")
        if key not in found:
            raise LayoutMismatch(f"The UNet lacks `{key}`, which {layout.id} has.")
        if found[key] != expected[key]:
            raise LayoutMismatch(
                f"`{key}` has the shape {found[key]}; with this base it is to be {expected[key]}."
            )


def _vae(vae: AutoencoderKL) -> Iterator[tuple[str, Tensor]]:
    levels, resnets = len(vae.config.block_out_channels), vae.config.layers_per_block + 1
    blocks = dict(_vae_blocks(levels, resnets))
    for key, tensor in vae.state_dict().items():
        linear = ".attentions." in key and tensor.ndim == 2  # there it is a convolution
        kernel = tensor[:, :, None, None] if linear else tensor
        yield _rename(key, blocks, _VAE_LAYERS), kernel


def _text(encoder: CLIPTextModel) -> Iterator[tuple[str, Tensor]]:
    blocks = {name: name for name, _ in _text_blocks(encoder.config.num_hidden_layers)}
    layers = {name: name for name in (*_TEXT_LAYERS, *_JOINED)}
    for key, tensor in encoder.state_dict().items():
        yield _rename(key.removeprefix(_WRAPPER), blocks, layers), tensor


def _text_2(encoder: CLIPTextModelWithProjection) -> Iterator[tuple[str, Tensor]]:
    state, depth = encoder.state_dict(), encoder.config.num_hidden_layers
    yield "text_projection", state.pop("text_projection.weight").T
    positions = state.pop(f"{_WRAPPER}embeddings.position_embedding.weight")
    yield "positional_embedding", positions
    for at, kind in product(range(depth), ("weight", "bias")):
        parts = [state.pop(f"{_WRAPPER}encoder.layers.{at}.{name}.{kind}") for name in _JOINED]
        yield f"transformer.resblocks.{at}.attn.in_proj_{kind}", torch.cat(parts)
    blocks = dict(_text_blocks(depth))
    for key, tensor in state.items():
        yield _rename(key.removeprefix(_WRAPPER), blocks, _TEXT_LAYERS), tensor


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


_UNET_BLOCKS = dict(_unet_blocks())


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


def _rename(key: str, blocks: Names, layers: Names) -> str:
    """``blocks`` holds modules with layers in them, and layers that stand alone."""
    module, _, kind = key.rpartition(".")
    if module in blocks:
        return f"{blocks[module]}.{kind}"
    for block, theirs in blocks.items():
        layer = module.removeprefix(f"{block}.")
        if layer != module and layer in layers:
            return f"{theirs}.{layers[layer]}.{kind}"
    raise LayoutMismatch(f"`{key}` is of no module whose name in the original code is known.")


def _save(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """A safetensors file, a tensor at a time; the hash of their bytes takes its place at last."""
    hashed = hashlib.sha256()
    with path.open("wb") as file:
        file.write(_header(tensors, {**metadata, _HASH: f"0x{'0' * 64}"}))
        for tensor in tensors.values():
            half = tensor.detach().to("cpu", torch.float16).flatten().numpy().data
            hashed.update(half)
            file.write(half)
        file.seek(0)
        file.write(_header(tensors, {**metadata, _HASH: f"0x{hashed.hexdigest()}"}))


def _header(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    entries: dict[str, object] = {METADATA: dict(sorted(metadata.items()))}
    begin = 0
    for key, tensor in tensors.items():
        end = begin + tensor.numel() * torch.float16.itemsize
        entries[key] = {"dtype": "F16", "shape": [*tensor.shape], "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    aligned = text.ljust(-(-len(text) // 8) * 8)
    return struct.pack("<Q", len(aligned)) + aligned


def _short(layout: Layout) -> str:
    return layout.id.replace("-", "")
