"""How good a nano-sdxl is: prompts drawn, and what the classifier sees on them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import StableDiffusionXLPipeline
from PIL import Image

from core.nano.recipe import scenes
from core.nano.recipe.captions import article
from core.nano.recipe.classifier import Classifier

SEED = 3501
STEPS = 25
GUIDANCE_SCALE = 5.0
BATCH = 24  # pictures at once
GAP = 2  # pixels between a sheet's pictures


@dataclass(frozen=True)
class Score:
    """Shares of pictures named rightly, and which subjects were taken for what."""

    subjects: float
    colours: float
    mistaken: list[tuple[str, str]]


def score(
    pipeline: StableDiffusionXLPipeline, classifier: Classifier, names: list[str], each: int
) -> Score:
    """Draws every subject ``each`` times, on plain grounds of drawn colours, and looks."""
    random = np.random.default_rng(SEED)
    asked = [(name, str(random.choice(list(scenes.COLOURS)))) for name in names * each]
    seen = classifier.look(draw(pipeline, [prompt(name, colour) for name, colour in asked]))
    pairs = list(zip(asked, seen.subjects, seen.colours, strict=True))
    return Score(
        subjects=sum(name == subject for (name, _), subject, _ in pairs) / len(pairs),
        colours=sum(colour == ground for (_, colour), _, ground in pairs) / len(pairs),
        mistaken=[(name, subject) for (name, _), subject, _ in pairs if name != subject],
    )


def prompt(name: str, colour: str) -> str:
    return f"a photo of {article(name)} {name} on {article(colour)} {colour} background"


def draw(
    pipeline: StableDiffusionXLPipeline, prompts: Sequence[str], seed: int = SEED
) -> list[Image.Image]:
    """A picture a prompt; the n-th starts from seed + n."""
    pictures: list[Image.Image] = []
    for start in range(0, len(prompts), BATCH):
        some = list(prompts[start : start + BATCH])
        generators = [torch.Generator().manual_seed(seed + start + n) for n in range(len(some))]
        drawn = pipeline(
            some,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE_SCALE,
            generator=generators,
        )
        pictures += drawn.images
    return pictures


def samples(pipeline: StableDiffusionXLPipeline, names: Sequence[str]) -> Image.Image:
    """A picture on each ground colour, of subjects from all over the list."""
    return sheet(draw(pipeline, sample_prompts(names)), columns=8, zoom=2)


def sample_prompts(names: Sequence[str]) -> list[str]:
    """One a ground colour."""
    return [
        prompt(names[number * len(names) // len(scenes.COLOURS)], colour)
        for number, colour in enumerate(scenes.COLOURS)
    ]


def sheet(pictures: Sequence[Image.Image], columns: int, zoom: int = 1) -> Image.Image:
    """The pictures side by side, enlarged without smoothing."""
    cell = scenes.SIDE + GAP
    rows = -(-len(pictures) // columns)
    whole = Image.new("RGB", (columns * cell, rows * cell), "white")
    for number, picture in enumerate(pictures):
        whole.paste(picture, (number % columns * cell, number // columns * cell))
    return whole.resize((whole.width * zoom, whole.height * zoom), Image.Resampling.NEAREST)
