"""Files that people take for a base of the family, each told by its name and with a way out."""

import re
from collections.abc import Mapping
from pathlib import Path

from core import originals
from core.errors import NotABase
from core.files.safetensors_header import Entry

KNOWN = "SDXL, SSD-1B, Vega and what was trained from them"
_PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
_LORA = re.compile(r"^lora_(unet|te)|[._]lora[._]|\.lora_[AB]\.|\.hada_w|\.lokr_w")
_MARKS = {
    "Stable Diffusion 1": ("cond_stage_model.transformer.",),
    "Stable Diffusion 2": ("cond_stage_model.model.",),
    "SDXL's refiner": ("conditioner.embedders.0.model.",),
    "a ControlNet": ("control_model.", "controlnet_"),
    "Stable Diffusion 3": ("joint_blocks.", "model.diffusion_model.joint_blocks."),
    "Flux": ("double_blocks.", "model.diffusion_model.double_blocks."),
    "Playground 2.5, whose noise is of another kind (EDM)": ("edm_mean",),
    "of a kind with another noise (EDM), as CosXL is": ("edm_vpred.sigma_max",),
}
"""What a key begins with, and what it then is of."""


def refuse_formats(path: Path) -> None:
    """Raises NotABase for files that are not safetensors, by their content and their name."""
    with path.open("rb") as file:
        first = file.read(4)
    if first == b"GGUF" or path.suffix == ".gguf":
        raise NotABase(
            f"{path.name} is a GGUF file, whose weights are quantised: bring the model as "
            ".safetensors in half precision."
        )
    if first[:2] in (b"PK", b"\x80\x02") or path.suffix in _PICKLES:
        raise NotABase(
            f"{path.name} is a pickle, which may run any program as it is opened: bring the model "
            "as .safetensors. Most are offered so; ComfyUI, on a machine that may be lost, saves "
            "one as such with its node for checkpoints."
        )


def refuse(name: str, tensors: Mapping[str, Entry]) -> None:
    """Raises NotABase for models that are no base, or of another family."""
    if any(_LORA.search(key) for key in tensors):
        raise NotABase(f"{name} is a LoRA, which needs a base and is none.")
    for what, marks in _MARKS.items():
        if any(key.startswith(marks) for key in tensors):
            raise NotABase(f"{name} is {what}: bases are {KNOWN}.")
    if "conv_in.weight" in tensors:
        raise NotABase(
            f"{name} is one part of a pipeline with diffusers' names: bring the whole folder, the "
            "one with model_index.json."
        )
    first = tensors.get(f"{originals.UNET_PREFIX}input_blocks.0.0.weight")
    require_four_channels(name, first)


def require_four_channels(name: str, first: Entry | None) -> None:
    """Of the UNet's first convolution. Raises NotABase."""
    channels = first.shape[1] if first and len(first.shape) > 1 else 4
    if channels == 9:
        raise NotABase(
            f"{name} is a model for inpainting (9 channels into its UNet): bring the one that it "
            "was made from."
        )
    if channels != 4:
        raise NotABase(f"{name} takes {channels} channels into its UNet, and bases take 4.")
