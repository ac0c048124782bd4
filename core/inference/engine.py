"""Pictures from a spec, one at a time, with what made them written inside.

The same request gives the same bytes on one device: noise is drawn on the CPU from the picture's
own seed, and nothing that moves (ids, times, versions) goes into the file.
"""

import json
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL.PngImagePlugin import PngInfo

from core.diffusion import adapter, conditioning, latents, sampling
from core.diffusion.components import Components
from core.diffusion.conditioning import Conditioning
from core.errors import OutOfMemory
from core.files.atomic import replacing
from core.files.digest import sha256_of
from core.inference import adapters
from core.specs import MAX_SEED, GenerateSpec

A1111_SAMPLERS = {
    "euler": ("Euler", "Automatic"),
    "euler_a": ("Euler a", "Automatic"),
    "ddim": ("DDIM", "Automatic"),
    "dpmpp_2m_karras": ("DPM++ 2M", "Karras"),
    "unipc": ("UniPC", "Automatic"),
    "lcm": ("LCM", "Automatic"),
}
"""Sampler and schedule type, as the web UI calls ours."""


@dataclass(frozen=True)
class Picture:
    """A finished picture; ``index`` counts through the whole request from 0. Sizes in pixels."""

    path: Path
    prompt: str
    seed: int
    width: int
    height: int
    index: int


@dataclass(frozen=True)
class DenoiseReport:
    """After a denoising step of picture ``image``; ``picture`` once it is on disk."""

    image: int  # 0-based
    images: int
    step: int  # 1 after the first
    steps: int
    picture: Picture | None = None


def generate(
    spec: GenerateSpec,
    components: Components,
    loras: Sequence[tuple[Path, float]],
    out: Path,
) -> Generator[DenoiseReport, None, None]:
    """Yields after each denoising step, and once more for each finished picture.

    Closing the generator stops it between two steps; the components are as they were in any case.

    Args:
        spec: with its seed filled in.
        components: the base that ``spec.base`` names.
        loras: files and weights, in the order of ``spec.loras``.
        out: folder for the pictures.

    Raises:
        LayoutMismatch: a LoRA does not fit the base; names the module.
        OutOfMemory: the device has not enough.
    """
    stack = adapters.compose([(adapter.read(path), weight) for path, weight in loras])
    recipe = _Recipe(spec, components, [(sha256_of(path), weight) for path, weight in loras])
    try:
        with adapters.applied(stack, components.unet):
            yield from _generate(recipe, out)
    except torch.OutOfMemoryError as full:
        raise OutOfMemory(
            f"{components.device} is out of memory: ask for a smaller `width` and `height`"
        ) from full


@dataclass(frozen=True)
class _Recipe:
    """A request with its gaps filled from the base."""

    spec: GenerateSpec
    components: Components
    loras: Sequence[tuple[str, float]]  # SHA-256 of the file, weight

    @property
    def width(self) -> int:
        return self.spec.width or self.components.native_size

    @property
    def height(self) -> int:
        return self.spec.height or self.components.native_size

    def seed(self, image: int) -> int:
        """Of image ``image`` of any prompt."""
        assert self.spec.seed is not None, "filled in at submit"
        return (self.spec.seed + image) % (MAX_SEED + 1)


def _generate(recipe: _Recipe, out: Path) -> Iterator[DenoiseReport]:
    spec = recipe.spec
    images = len(spec.prompts) * spec.images
    negative = conditioning.encode_negative(recipe.components, spec.negative_prompt)
    for row, prompt in enumerate(spec.prompts):
        positive = conditioning.encode_prompt(recipe.components, prompt)
        for image in range(spec.images):
            index, seed = row * spec.images + image, recipe.seed(image)
            picture = Picture(
                path=out / f"{index:04d}-{seed}.png",
                prompt=prompt,
                seed=seed,
                width=recipe.width,
                height=recipe.height,
                index=index,
            )
            for step in _draw(recipe, positive, negative, picture):
                yield DenoiseReport(index, images, step, spec.steps)
            yield DenoiseReport(index, images, spec.steps, spec.steps, picture)


def _draw(
    recipe: _Recipe, positive: Conditioning, negative: Conditioning, picture: Picture
) -> Iterator[int]:
    """Yields the number of each denoising step, then writes the picture."""
    spec = recipe.spec
    steps = sampling.denoise(
        recipe.components,
        prompt=positive,
        negative=negative,
        scheduler=spec.scheduler,
        steps=spec.steps,
        guidance=spec.guidance,
        height=picture.height,
        width=picture.width,
        generator=torch.Generator().manual_seed(picture.seed),
    )
    for number, latents_1CHW in enumerate(steps, start=1):  # noqa: B007 - the last is the picture
        yield number
    pixels_1CHW = latents.decode(recipe.components.vae, latents_1CHW)
    with replacing(picture.path) as aside:
        latents.to_image(pixels_1CHW[0]).save(aside, format="PNG", pnginfo=_text(recipe, picture))


def _text(recipe: _Recipe, picture: Picture) -> PngInfo:
    text = PngInfo()
    text.add_text("parameters", _a1111_parameters(recipe, picture))
    text.add_text("stillroom", json.dumps(_settings(recipe, picture), sort_keys=True))
    return text


def _a1111_parameters(recipe: _Recipe, picture: Picture) -> str:
    """One line a prompt, then the settings, as AUTOMATIC1111's web UI writes and reads them."""
    spec = recipe.spec
    sampler, schedule = A1111_SAMPLERS[spec.scheduler]
    settings = {
        "Steps": spec.steps,
        "Sampler": sampler,
        "Schedule type": schedule,
        "CFG scale": spec.guidance,
        "Seed": picture.seed,
        "Size": f"{picture.width}x{picture.height}",
        "Model": spec.base,
    }
    lines = [picture.prompt]
    if spec.negative_prompt:
        lines.append(f"Negative prompt: {spec.negative_prompt}")
    lines.append(", ".join(f"{name}: {value}" for name, value in settings.items()))
    return "\n".join(lines)


def _settings(recipe: _Recipe, picture: Picture) -> dict[str, object]:
    """All that it takes to draw the picture again."""
    spec = recipe.spec
    return {
        "prompt": picture.prompt,
        "negative_prompt": spec.negative_prompt,
        "seed": picture.seed,
        "base": spec.base,
        "loras": [{"sha256": digest, "weight": weight} for digest, weight in recipe.loras],
        "steps": spec.steps,
        "guidance": spec.guidance,
        "scheduler": spec.scheduler,
        "width": picture.width,
        "height": picture.height,
        "precision": str(recipe.components.dtype).removeprefix("torch."),
    }
