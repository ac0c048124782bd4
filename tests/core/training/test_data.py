"""Pictures to views: what is seen, and what SDXL is told about it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from core.diffusion import latents
from core.diffusion.components import Components
from core.diffusion.picture import open_picture
from core.specs import FineTuneSpec
from core.training import data
from tests.support import pictures


def spec_with(**fields: object) -> FineTuneSpec:
    return FineTuneSpec.model_validate(
        {"base": "b", "dataset": "d", "instance_prompt": "sks", "seed": 3, **fields}
    )


def same(first: Image.Image, second: Image.Image) -> bool:
    return np.array_equal(np.array(first), np.array(second))


def test_what_was_transparent_is_white(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (2, 1), (200, 0, 0, 255))
    picture.putpixel((1, 0), (0, 0, 0, 0))
    picture.save(tmp_path / "a.png")
    opened = open_picture(tmp_path / "a.png")
    assert (opened.mode, opened.getpixel((0, 0)), opened.getpixel((1, 0))) == (
        "RGB", (200, 0, 0), (255, 255, 255),
    )  # fmt: skip


@pytest.mark.parametrize("mode", ["L", "P", "LA", "RGB"])
def test_any_mode_becomes_rgb(mode: str, tmp_path: Path) -> None:
    pictures.draw(0).convert(mode).save(tmp_path / "a.png")
    assert open_picture(tmp_path / "a.png").mode == "RGB"


@pytest.mark.parametrize(("width", "height"), [(200, 100), (100, 200), (37, 64), (33, 1000)])
def test_the_shorter_side_is_resized_and_the_centre_cut(width: int, height: int) -> None:
    (view,) = data.views(pictures.draw(0, width, height), 0, spec_with(), side=64)
    top, left = view.crop_top_left
    assert view.image.size == (64, 64)
    assert view.original_hw == (height, width)
    resized_height, resized_width = (
        (64, round(width * 64 / height)) if width > height else (round(height * 64 / width), 64)
    )
    assert (top, left) == ((resized_height - 64) // 2, (resized_width - 64) // 2)
    assert view.time_ids.tolist() == [[height, width, top, left, 64, 64]]


def test_random_crops_are_fixed_and_differ() -> None:
    spec = spec_with(crop="random", crop_variants=6)
    picture = pictures.draw(0, 300, 64)
    corners = [view.crop_top_left for view in data.views(picture, 1, spec, 64)]
    assert corners == [view.crop_top_left for view in data.views(picture, 1, spec, 64)]
    assert len(set(corners)) > 1
    assert all(top == 0 and 0 <= left <= 236 for top, left in corners)
    assert corners != [view.crop_top_left for view in data.views(picture, 2, spec, 64)]


@pytest.mark.parametrize("crop", ["center", "random"])
def test_time_ids_are_true_of_the_mirrored_picture(crop: str) -> None:
    picture = pictures.draw(0, 301, 64)
    views = list(data.views(picture, 0, spec_with(crop=crop, flip=True), side=64))
    assert len(views) == (2 if crop == "center" else 8)
    for plain, mirrored in zip(views[::2], views[1::2], strict=True):
        top, left = mirrored.crop_top_left
        whole = ImageOps.mirror(picture)
        assert same(mirrored.image, whole.crop((left, top, left + 64, top + 64)))
        assert same(plain.image, ImageOps.mirror(mirrored.image))
        assert mirrored.original_hw == plain.original_hw


def test_a_row_holds_each_view_of_a_picture(nano_ssd_1b: Components, tmp_path: Path) -> None:
    spec = spec_with(flip=True)
    _, path = pictures.write(tmp_path, count=2)
    row = data.encode_views(open_picture(path), 1, spec, nano_ssd_1b, 64)
    assert spec.views_per_picture == 2
    assert row["mean"].shape == row["std"].shape == (2, 4, 16, 16)
    assert row["time_ids"].shape == (2, 6)
    mirrored = latents.to_pixels(ImageOps.mirror(pictures.draw(1)))[None]
    expected = latents.encode(nano_ssd_1b.vae, mirrored)
    assert torch.equal(row["mean"][1:], expected.mean_BCHW)
    assert torch.equal(row["std"][1:], expected.std_BCHW)


@pytest.mark.parametrize(
    ("fields", "views"),
    [({}, 1), ({"flip": True}, 2), ({"crop": "random", "crop_variants": 3, "flip": True}, 6)],
)
def test_views_are_counted_as_they_are_made(fields: dict[str, object], views: int) -> None:
    spec = spec_with(**fields)
    assert spec.views_per_picture == views
    assert len(list(data.views(pictures.draw(0), 0, spec, 64))) == views
