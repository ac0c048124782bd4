"""The weights that ship, checked with what a clone has: no icons, no classifier.

How well they draw their subjects is measured in ``tests/bench/test_nano_quality.py``.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from api.commands import recipes
from core.bases import EMBEDDED, NANO_SDXL, NANO_SSD_1B
from core.diffusion import surgery
from core.layouts import SSD_1B
from core.nano.recipe import judge
from core.nano.recipe.scenes import COLOURS
from core.specs import SPECS
from tests.support.nano import NUMPY_COPY, load, unet_output

pytestmark = NUMPY_COPY

MOST_BYTES = 40_000_000
EDGE = 5  # pixels of the border that no subject reaches


def nearest_colour(pixels_NC: np.ndarray[tuple[int, int], np.dtype[np.uint8]]) -> str:
    """The colour whose levels are nearest to the median pixel's."""
    median_C = np.median(pixels_NC, axis=0)
    return min(COLOURS, key=lambda name: float(np.abs(COLOURS[name] - median_C).sum()))


def test_they_are_few_bytes_of_half_precision() -> None:
    files = sorted(EMBEDDED.rglob("*.safetensors"))
    assert len(files) == 2 * 4
    assert sum(path.stat().st_size for path in EMBEDDED.rglob("*") if path.is_file()) < MOST_BYTES
    for path in files:
        with safe_open(path, framework="pt") as file:
            assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"F16"}  # noqa: SIM118


def test_they_tell_nothing_of_the_machine_they_were_made_on() -> None:
    for path in EMBEDDED.rglob("*.json"):
        assert "_name_or_path" not in json.loads(path.read_text("utf-8")), path


def test_the_students_job_can_be_posted_again() -> None:
    kind, spec = recipes.read(str(NANO_SSD_1B / "job.json"))
    assert SPECS[kind].model_validate({**spec, "dataset": "d"}).kind == "distill"


def test_the_student_answers_as_its_teacher_does() -> None:
    """What it does better than one that is cut out and not taught."""
    teacher, student = load(NANO_SDXL), load(NANO_SSD_1B)
    cut = surgery.student_from_teacher(teacher.unet, SSD_1B, (0, 1, 2, 3)).student
    asked = unet_output(teacher)
    taught, untaught = (
        (unet_output(replace(teacher, unet=unet)) - asked).square().mean().item()
        for unet in (student.unet, cut)
    )
    assert taught < 0.5 * untaught


@pytest.fixture(scope="module")
def balls() -> dict[str, Image.Image]:
    """A white ball on each of the grounds."""
    prompts = [judge.prompt("white ball", colour) for colour in COLOURS]
    return dict(zip(COLOURS, judge.draw(load(NANO_SDXL).pipeline(), prompts), strict=True))


@pytest.mark.parametrize("colour", COLOURS)
def test_a_ground_is_of_the_colour_asked_for(colour: str, balls: dict[str, Image.Image]) -> None:
    pixels_HWC = np.asarray(balls[colour])
    border = np.concatenate([pixels_HWC[:EDGE].reshape(-1, 3), pixels_HWC[-EDGE:].reshape(-1, 3)])
    assert nearest_colour(border) == colour
