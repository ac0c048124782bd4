"""A whole pipeline in one file of halves: the checkpoint that ComfyUI, A1111 and
``from_single_file`` of diffusers read.

Modules go by their original names (``core.originals``); what has none is refused.
"""

import hashlib
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from core import originals
from core.diffusion.components import Components
from core.diffusion.unet_folder import WEIGHTS as UNET_WEIGHTS
from core.errors import ExportMismatch, LayoutMismatch
from core.files import safetensors_header
from core.files.atomic import replacing
from core.files.safetensors_header import METADATA
from core.layouts import Layout
from core.originals import JOINED, WRAPPER

_HASH = "modelspec.hash_sha256"


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
        tensors[originals.VELOCITY] = torch.empty(0)
    if scheduler.rescale_betas_zero_snr:
        tensors[originals.ZERO_SNR] = torch.empty(0)
    metadata = {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "stable-diffusion-xl-v1-base",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.title": f"stillroom-{_short(layout)}",
        "modelspec.resolution": f"{side}x{side}",
        "modelspec.prediction_type": originals.PREDICTIONS[scheduler.prediction_type],
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
        originals.UNET_PREFIX: ((originals.UNET.of(key), tensor) for key, tensor in unet.items()),
        originals.VAE_PREFIX: _vae(components.vae),
        originals.TEXT_PREFIX: _text(components.text_encoder),
        originals.TEXT_2_PREFIX: _text_2(components.text_encoder_2),
    }
    return {prefix + key: tensor for prefix, part in parts.items() for key, tensor in part}


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
    names = originals.vae(levels, resnets)
    for key, tensor in vae.state_dict().items():
        linear = ".attentions." in key and tensor.ndim == 2  # there it is a convolution
        kernel = tensor[:, :, None, None] if linear else tensor
        yield names.of(key), kernel


def _text(encoder: CLIPTextModel) -> Iterator[tuple[str, Tensor]]:
    names = originals.text(encoder.config.num_hidden_layers)
    for key, tensor in encoder.state_dict().items():
        yield names.of(key.removeprefix(WRAPPER)), tensor


def _text_2(encoder: CLIPTextModelWithProjection) -> Iterator[tuple[str, Tensor]]:
    state, depth = encoder.state_dict(), encoder.config.num_hidden_layers
    yield originals.TEXT_2_PROJECTION, state.pop("text_projection.weight").T
    positions = state.pop(f"{WRAPPER}embeddings.position_embedding.weight")
    yield originals.TEXT_2_POSITIONS, positions
    for at, kind in product(range(depth), ("weight", "bias")):
        parts = [state.pop(f"{WRAPPER}encoder.layers.{at}.{name}.{kind}") for name in JOINED]
        yield originals.joined(at, kind), torch.cat(parts)
    names = originals.text_2(depth)
    for key, tensor in state.items():
        yield names.of(key.removeprefix(WRAPPER)), tensor


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
    return safetensors_header.text(entries)


def _short(layout: Layout) -> str:
    return layout.id.replace("-", "")
