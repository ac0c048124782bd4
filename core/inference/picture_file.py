"""A picture's file, with what made it written inside.

Nothing that moves (ids, times, versions) goes in: the same request gives the same bytes.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from core.files.atomic import replacing
from core.specs import GenerateSpec

A1111_SAMPLERS = {
    "euler": ("Euler", "Automatic"),
    "euler_a": ("Euler a", "Automatic"),
    "ddim": ("DDIM", "Automatic"),
    "dpmpp_2m_karras": ("DPM++ 2M", "Karras"),
    "unipc": ("UniPC", "Automatic"),
    "lcm": ("LCM", "Automatic"),
}
"""Sampler and schedule type, as the web UI calls ours."""

_QUALITY = 95
"""Of JPEG and WebP: what is lost is not seen. PNG loses nothing."""
_EXIF_BYTES = 65_000
_EXIF_IFD, _USER_COMMENT, _DESCRIPTION = 0x8769, 0x9286, 0x010E


@dataclass(frozen=True)
class Making:
    """All that it takes to draw a picture again; the spec's gaps are filled in."""

    spec: GenerateSpec
    prompt: str
    seed: int
    dtype: torch.dtype
    loras: Sequence[tuple[str, float]]
    """SHA-256 of the file, and weight."""
    start_sha256: str | None
    """Of the picture that it began with."""


def write(path: Path, image: Image.Image, making: Making) -> None:
    """Whole or not at all, in the format of the spec."""
    parameters, settings = a1111_parameters(making), json.dumps(_settings(making), sort_keys=True)
    with replacing(path) as aside:
        match making.spec.format:
            case "png":
                text = PngInfo()
                text.add_text("parameters", parameters)
                text.add_text("stillroom", settings)
                image.save(aside, format="PNG", pnginfo=text)
            case "jpeg":
                exif = _exif(parameters, settings)
                image.save(aside, format="JPEG", quality=_QUALITY, subsampling=0, exif=exif)
            case "webp":
                exif = _exif(parameters, settings)
                image.save(aside, format="WEBP", quality=_QUALITY, exif=exif)


def a1111_parameters(making: Making) -> str:
    """One line a prompt, then the settings, as AUTOMATIC1111's web UI writes and reads them."""
    spec = making.spec
    sampler, schedule = A1111_SAMPLERS[spec.scheduler]
    settings: dict[str, object] = {
        "Steps": spec.steps,
        "Sampler": sampler,
        "Schedule type": schedule,
        "CFG scale": spec.guidance,
        "Seed": making.seed,
        "Size": f"{spec.width}x{spec.height}",
        "Model": spec.base,
    }
    if spec.image:
        settings["Denoising strength"] = spec.image.strength
    lines = [making.prompt]
    if spec.negative_prompt:
        lines.append(f"Negative prompt: {spec.negative_prompt}")
    lines.append(", ".join(f"{name}: {value}" for name, value in settings.items()))
    return "\n".join(lines)


def _settings(making: Making) -> dict[str, object]:
    spec = making.spec
    start = {"sha256": making.start_sha256, "strength": spec.image.strength} if spec.image else None
    return {
        "prompt": making.prompt,
        "negative_prompt": spec.negative_prompt,
        "seed": making.seed,
        "base": spec.base,
        "loras": [{"sha256": digest, "weight": weight} for digest, weight in making.loras],
        "steps": spec.steps,
        "guidance": spec.guidance,
        "scheduler": spec.scheduler,
        "width": spec.width,
        "height": spec.height,
        "image": start,
        "precision": str(making.dtype).removeprefix("torch."),
    }


def _exif(parameters: str, settings: str) -> Image.Exif:
    """Where the web UI looks in files that are no PNG. A JPEG has room for 64 kB: prompts so long
    that it is too little are told once, as the web UI does."""
    exif = Image.Exif()
    exif.get_ifd(_EXIF_IFD)[_USER_COMMENT] = b"UNICODE\0" + parameters.encode("utf-16-be")
    if len(exif.tobytes()) + len(settings) < _EXIF_BYTES:
        exif[_DESCRIPTION] = settings
    return exif
