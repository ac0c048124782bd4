"""A UNet as diffusers' folder: ``config.json`` and one file of halves."""

import json
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor

from core.diffusion.components import load_unet
from core.diffusion.probe import ROUNDING, probe
from core.errors import ExportMismatch
from core.files import atomic

WEIGHTS = "diffusion_pytorch_model.safetensors"


def halves(unet: UNet2DConditionModel) -> dict[str, Tensor]:
    """Its weights in fp16 on the CPU, contiguous."""
    return {
        name: tensor.detach().to("cpu", torch.float16).contiguous()
        for name, tensor in unet.state_dict().items()
    }


def write(unet: UNet2DConditionModel, folder: Path) -> Path:
    """``folder``, which ``UNet2DConditionModel.from_pretrained`` reads as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads(unet.to_json_string())
    config.pop("_name_or_path", None)  # where it was loaded from: nobody's business elsewhere
    atomic.write_text(folder / "config.json", json.dumps(config, indent=2, sort_keys=True))
    with atomic.replacing(folder / WEIGHTS) as aside:
        save_file(halves(unet), aside, metadata={"format": "pt"})
    return folder


@torch.no_grad()
def read_back(
    folder: Path, trained: Tensor, start: Tensor, dtype: torch.dtype
) -> UNet2DConditionModel:
    """The UNet that the folder holds, on the device of ``trained``.

    Args:
        trained: what the UNet that was written answers to ``probe``.
        start: what that one answered before its training.
        dtype: of the UNet that is returned.

    Raises:
        ExportMismatch: it answers otherwise than ``trained`` by more than half precision explains,
            or not in finite numbers; or ``trained`` is ``start``.
    """
    unet = load_unet(folder, device=trained.device, dtype=dtype)
    answer = probe(unet)
    if not answer.isfinite().all():
        raise ExportMismatch("the UNet, in half precision, gives values that are not finite")
    if torch.equal(trained, start):
        raise ExportMismatch("training changed nothing: train longer or at a higher rate")
    error, size = (answer - trained).norm().item(), trained.norm().item()
    if error > max(ROUNDING[dtype], ROUNDING[torch.float16]) * size:
        raise ExportMismatch(
            f"the UNet, read back, is off by {error:.3g} where its answer is {size:.3g}"
        )
    return unet
