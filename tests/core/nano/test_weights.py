"""The weights that ship, checked with what a clone has: no icons, no classifier.

How well they draw their subjects is measured in ``tests/bench/test_nano_quality.py``.
"""

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from core.bases import NANO_SDXL
from core.nano.recipe import judge
from core.nano.recipe.scenes import COLOURS
from tests.support.nano import NUMPY_COPY, load

pytestmark = NUMPY_COPY

MOST_BYTES = 25_000_000
EDGE = 5  # pixels of the border that no subject reaches


def nearest_colour(pixels_NC: np.ndarray[tuple[int, int], np.dtype[np.uint8]]) -> str:
    """The colour whose levels are nearest to the median pixel's."""
    median_C = np.median(pixels_NC, axis=0)
    return min(COLOURS, key=lambda name: float(np.abs(COLOURS[name] - median_C).sum()))


def test_they_are_few_bytes_of_half_precision() -> None:
    files = sorted(NANO_SDXL.rglob("*.safetensors"))
    assert len(files) == 4
    assert sum(path.stat().st_size for path in NANO_SDXL.rglob("*") if path.is_file()) < MOST_BYTES
    for path in files:
        with safe_open(path, framework="pt") as file:
            assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"F16"}  # noqa: SIM118


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
