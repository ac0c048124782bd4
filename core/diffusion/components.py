"""The parts of an SDXL pipeline, loaded once and shared by whoever draws or trains."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors import safe_open
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from core.errors import BaseNotAvailable
from core.layouts import UNetShape, find_layout


@dataclass(frozen=True)
class Components:
    """Frozen weights in eval mode on one device; nothing here asks for gradients.

    ``zero_unconditional``: the unconditional half of guidance is zeros, not the empty prompt.
    ``native_size`` is in pixels, ``latent_factor`` in pixels a latent cell. ``scheduler`` carries
    the base's betas and prediction type; whoever draws makes one of their own from its config.
    """

    folder: Path
    unet_folder: Path
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    text_encoder_2: CLIPTextModelWithProjection
    tokenizer: CLIPTokenizer
    tokenizer_2: CLIPTokenizer
    scheduler: EulerDiscreteScheduler
    zero_unconditional: bool
    native_size: int
    latent_factor: int
    device: torch.device
    dtype: torch.dtype

    def part_folder(self, part: str) -> Path:
        """Where ``unet``, ``vae``, ``tokenizer_2`` ... was loaded from."""
        return self.unet_folder if part == "unet" else self.folder / part

    @property
    def held_bytes(self) -> int:
        """Of the device's memory."""
        parts = (self.unet, self.vae, self.text_encoder, self.text_encoder_2)
        return sum(weight.nbytes for part in parts for weight in part.state_dict().values())

    @property
    def pooled_width(self) -> int:
        """Of the prompt's pooled embedding."""
        return self.text_encoder_2.text_projection.out_features

    def pipeline(self) -> StableDiffusionXLPipeline:
        """diffusers' own pipeline over these very modules."""
        return StableDiffusionXLPipeline(
            vae=self.vae,
            text_encoder=self.text_encoder,
            text_encoder_2=self.text_encoder_2,
            tokenizer=self.tokenizer,
            tokenizer_2=self.tokenizer_2,
            unet=self.unet,
            scheduler=self.scheduler,
            force_zeros_for_empty_prompt=self.zero_unconditional,
            add_watermarker=False,
        )


def load(
    folder: Path, *, device: torch.device, dtype: torch.dtype, unet_folder: Path | None = None
) -> Components:
    """Loads a pipeline folder from this disk: safetensors only, nothing is fetched or executed.

    Args:
        folder: with ``model_index.json`` and a subfolder a part.
        unet_folder: of a UNet in place of the pipeline's own.
        device: where all modules go.
        dtype: of all weights.

    Raises:
        BaseNotAvailable: a part is missing; names it.
    """
    index = _read_index(folder)
    vae = _module(AutoencoderKL, folder / "vae", device, dtype)
    unet_folder = unet_folder or folder / "unet"
    unet = load_unet(unet_folder, device=device, dtype=dtype)
    latent_factor = 2 ** (len(vae.config.block_out_channels) - 1)
    return Components(
        folder=folder,
        unet_folder=unet_folder,
        unet=unet,
        vae=vae,
        text_encoder=_module(CLIPTextModel, folder / "text_encoder", device, dtype),
        text_encoder_2=_module(
            CLIPTextModelWithProjection, folder / "text_encoder_2", device, dtype
        ),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True),
        tokenizer_2=CLIPTokenizer.from_pretrained(folder / "tokenizer_2", local_files_only=True),
        scheduler=EulerDiscreteScheduler.from_pretrained(
            folder / "scheduler", local_files_only=True
        ),
        zero_unconditional=index.get("force_zeros_for_empty_prompt", True),
        native_size=unet.config.sample_size * latent_factor,
        latent_factor=latent_factor,
        device=device,
        dtype=dtype,
    )


def load_unet(folder: Path, *, device: torch.device, dtype: torch.dtype) -> UNet2DConditionModel:
    """A UNet's folder as ``load`` takes it, frozen. Raises BaseNotAvailable."""
    unet: UNet2DConditionModel = _module(UNet2DConditionModel, folder, device, dtype)
    return unet


def count_weights(folder: Path, unet_folder: Path | None = None) -> int:
    """How many numbers ``load`` would hold, told from the files' headers."""
    folders = [folder / part for part in ("vae", "text_encoder", "text_encoder_2")]
    return sum(_count_in(each) for each in [*folders, unet_folder or folder / "unet"])


def shape_of(components: Components) -> UNetShape:
    """Of the UNet that is loaded."""
    unet = components.unet
    (layout,) = find_layout(unet.state_dict())
    first, second, third = unet.config.block_out_channels
    return UNetShape(layout, (first, second, third), components.native_size)


def _read_index(folder: Path) -> dict[str, Any]:
    try:
        index: dict[str, Any] = json.loads((folder / "model_index.json").read_text("utf-8"))
    except FileNotFoundError as missing:
        raise BaseNotAvailable("The base's folder holds no model_index.json.") from missing
    return index


def _module(kind: Any, folder: Path, device: torch.device, dtype: torch.dtype) -> Any:
    module = kind.from_pretrained(
        folder,
        variant=_variant(folder),
        torch_dtype=dtype,
        use_safetensors=True,
        local_files_only=True,
    )
    return module.to(device).eval().requires_grad_(False)


def _count_in(folder: Path) -> int:
    variant, count = _variant(folder), 0
    for path in folder.glob("*.safetensors"):
        if (".fp16." in path.name) == (variant == "fp16"):
            with safe_open(path, framework="pt") as file:
                count += sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118
    return count


def _variant(folder: Path) -> str | None:
    """``fp16`` where a folder has only the half-precision files."""
    files = list(folder.glob("*.safetensors"))
    if not files:
        raise BaseNotAvailable(f"The base's {folder.name} holds no safetensors weights.")
    return "fp16" if all(".fp16." in file.name for file in files) else None
