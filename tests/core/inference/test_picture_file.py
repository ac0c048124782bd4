"""The file of a picture tells what made it, in each format."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from core.diffusion.sampling import SCHEDULERS
from core.inference import picture_file
from core.inference.picture_file import Making
from core.specs import GenerateSpec

PARAMETERS = (
    "a dög 犬\nNegative prompt: blurry\nSteps: 2, Sampler: DPM++ 2M, Schedule type: Karras, "
    "CFG scale: 3.5, Seed: 7, Size: 96x64, Model: nano-ssd-1b"
)
SETTINGS = {
    "prompt": "a dög 犬",
    "negative_prompt": "blurry",
    "seed": 7,
    "base": "nano-ssd-1b",
    "loras": [{"sha256": "ab" * 32, "weight": 0.5}],
    "steps": 2,
    "guidance": 3.5,
    "scheduler": "dpmpp_2m_karras",
    "width": 96,
    "height": 64,
    "image": None,
    "precision": "float32",
}
FORMATS = ["png", "jpeg", "webp"]


def making(**fields: object) -> Making:
    spec = {
        "base": "nano-ssd-1b",
        "prompt": ["a cat", "a dög 犬"],
        "negative_prompt": "blurry",
        "steps": 2,
        "guidance": 3.5,
        "scheduler": "dpmpp_2m_karras",
        "seed": 6,
        "width": 96,
        "height": 64,
        **fields,
    }
    return Making(
        spec=GenerateSpec.model_validate(spec),
        prompt="a dög 犬",
        seed=7,
        dtype=torch.float32,
        loras=[("ab" * 32, 0.5)],
        start_sha256="cd" * 32 if "image" in fields else None,
    )


def gradient() -> Image.Image:
    across = np.linspace(0, 255, 96)[None, :].repeat(64, axis=0)
    levels = np.stack([across, across[:, ::-1], np.full_like(across, 90)], axis=-1)
    return Image.fromarray(levels.astype(np.uint8))


def parameters_of(path: Path) -> str:
    """As the web UI reads them."""
    with Image.open(path) as image:
        image.load()
        if image.format == "PNG":
            return str(image.info["parameters"])
        comment: bytes = image.getexif().get_ifd(0x8769)[0x9286]
        assert comment.startswith(b"UNICODE\0")
        return comment[8:].decode("utf-16-be")


def told_by(path: Path) -> tuple[str, dict[str, object]]:
    """The same, and what is ours."""
    with Image.open(path) as image:
        image.load()
        ours = image.info["stillroom"] if image.format == "PNG" else image.getexif()[0x010E]
    return parameters_of(path), json.loads(ours)


@pytest.mark.parametrize("format_", FORMATS)
def test_it_tells_how_it_was_made(format_: str, tmp_path: Path) -> None:
    path = tmp_path / "picture"
    picture_file.write(path, gradient(), making(format=format_))
    assert told_by(path) == (PARAMETERS, SETTINGS)
    with Image.open(path) as image:
        assert image.format == format_.upper()
        error = np.abs(np.array(image).astype(int) - np.array(gradient())).mean()
    assert error == 0 if format_ == "png" else error < 3


@pytest.mark.parametrize("format_", FORMATS)
def test_the_same_picture_is_the_same_bytes(format_: str, tmp_path: Path) -> None:
    for name in ("1", "2"):
        picture_file.write(tmp_path / name, gradient(), making(format=format_))
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


@pytest.mark.parametrize("letter", ["犬", "🐕"])
@pytest.mark.parametrize("format_", FORMATS)
def test_the_longest_prompts_that_are_taken_fit_into_every_format(
    format_: str, letter: str, tmp_path: Path
) -> None:
    longest = letter * 4000
    made = making(format=format_, prompt=longest, negative_prompt=longest)
    picture_file.write(tmp_path / "picture", gradient(), replace(made, prompt=longest))
    assert parameters_of(tmp_path / "picture").startswith(
        f"{longest}\nNegative prompt: {longest}\n"
    )


def test_a_picture_to_begin_with_is_told_by_its_hash(tmp_path: Path) -> None:
    image = {"dataset": "dst_1", "image": "img_1", "strength": 0.4}
    picture_file.write(tmp_path / "picture", gradient(), making(image=image))
    parameters, settings = told_by(tmp_path / "picture")
    assert parameters.endswith("Denoising strength: 0.4")
    assert settings["image"] == {"sha256": "cd" * 32, "strength": 0.4}


def test_every_scheduler_has_a_name_for_the_web_ui() -> None:
    assert picture_file.A1111_SAMPLERS.keys() == SCHEDULERS.keys()
