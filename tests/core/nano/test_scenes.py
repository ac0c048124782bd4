"""Scenes and their captions: made from numbers, and true."""

import numpy as np
import pytest
from PIL import Image

from core.nano.recipe import captions, scenes, shapes
from core.nano.recipe.scenes import COLOURS, TEXTURES, Content, Cutout

WHITE = Cutout("square", Image.new("RGBA", (96, 96), "white"))


def test_a_scene_follows_from_its_numbers() -> None:
    first, again, other = (
        scenes.compose(WHITE, scenes.random_of(1, ordinal)) for ordinal in (5, 5, 6)
    )
    assert np.array_equal(first.pixels_HWC, again.pixels_HWC)
    assert (first.content, first.time_ids) == (again.content, again.time_ids)
    assert not np.array_equal(first.pixels_HWC, other.pixels_HWC)


@pytest.mark.parametrize("texture", TEXTURES)
@pytest.mark.parametrize("colour", COLOURS)
def test_a_ground_is_of_the_colour_it_is_called(colour: str, texture: str) -> None:
    named_C3 = np.array(list(COLOURS.values()))
    for ordinal in range(5):
        random = scenes.random_of(2, ordinal)
        ground = np.asarray(scenes.background(colour, texture, (64, 64), random), dtype=float)
        off_NC = np.abs(ground.reshape(-1, 1, 3) - named_C3).sum(axis=2)
        share = (off_NC.argmin(axis=1) == list(COLOURS).index(colour)).mean()
        # stripes and checks leave it half of the ground, less their soft edges
        assert share > (0.4 if texture in ("striped", "checkered") else 0.6)


def test_what_is_given_is_not_drawn() -> None:
    scene = scenes.compose(WHITE, scenes.random_of(3, 0), colour="navy", texture="dotted")
    assert scene.content == Content("square", "navy", "dotted")


def test_crops_lie_inside_their_originals() -> None:
    for ordinal in range(300):
        scene = scenes.compose(WHITE, scenes.random_of(4, ordinal))
        assert scene.pixels_HWC.shape == (64, 64, 3)
        height, width, top, left, *target = scene.time_ids
        assert target == [64, 64]
        resized = 64 / min(height, width)
        assert top + 64 <= height * resized + 2
        assert left + 64 <= width * resized + 2


def test_a_small_original_has_less_to_show() -> None:
    detail: dict[bool, list[float]] = {True: [], False: []}
    noise = Image.effect_noise((96, 96), 90).convert("RGBA")
    for ordinal in range(200):
        scene = scenes.compose(
            Cutout("noise", noise), scenes.random_of(5, ordinal), texture="plain"
        )
        edges = np.abs(np.diff(scene.pixels_HWC.astype(float), axis=0)).mean()
        detail[min(scene.original_hw) < 48].append(float(edges))
    assert np.mean(detail[True]) < 0.7 * np.mean(detail[False])


def test_shapes_differ_from_one_another() -> None:
    drawn = shapes.cutouts()
    assert len({cutout.name for cutout in drawn}) == len(drawn) == 160
    assert len({cutout.picture.tobytes() for cutout in drawn}) == 160


def test_a_caption_names_what_is_there() -> None:
    content = Content("apple", "orange", "striped")
    said = {captions.caption(content, scenes.random_of(6, number)) for number in range(300)}
    assert "a photo of an apple on a striped orange background" in said
    assert all("apple" in words for words in said)
    silent = [words for words in said if "background" not in words]
    assert 0 < len(silent) < len(said)
    assert all("striped orange background" in words for words in said if words not in silent)
    empty = captions.caption(Content(None, "orange", "plain"), scenes.random_of(6, 0))
    assert empty == "an orange background"
