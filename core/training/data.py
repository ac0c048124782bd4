"""Pictures as training sees them: a few fixed views of each, encoded once.

A view is a crop, mirrored or not. V counts the views of one picture.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image, ImageOps
from torch import Tensor

from core.diffusion import conditioning, latents
from core.diffusion.components import Components
from core.diffusion.picture import on_white, open_picture
from core.files.digest import sha256_of
from core.pictures.reference import Reference
from core.specs import TrainingSpec
from core.training import draws
from core.training.shelf import Row


@dataclass(frozen=True)
class View:
    """A square of ``side`` pixels out of a picture, and what SDXL is told about it.

    ``crop_top_left`` is in the resized picture; of the mirrored one where ``mirrored``.
    """

    image: Image.Image
    original_hw: tuple[int, int]
    crop_top_left: tuple[int, int]

    @property
    def time_ids(self) -> Tensor:
        return conditioning.time_ids(
            original_hw=self.original_hw,
            crop_top_left=self.crop_top_left,
            target_hw=(self.image.height, self.image.width),
        )


@dataclass(frozen=True)
class Source:
    """A picture of any size, and the words that belong to it, if any: a file that nobody else
    touches, or a reference to one that its owner keeps."""

    picture: Path | Reference
    caption: str | None = None

    @property
    def name(self) -> str:
        return self.picture.name

    @cached_property
    def sha256(self) -> str:
        """Of the file's bytes."""
        if isinstance(self.picture, Reference):
            return self.picture.sha256
        return sha256_of(self.picture)

    def open(self) -> Image.Image:
        """In RGB, upright.

        Raises:
            PictureGone, PictureChanged, PictureUnreadable: of a reference.
        """
        if isinstance(self.picture, Reference):
            return on_white(self.picture.open())
        return open_picture(self.picture)


def views(picture: Image.Image, number: int, spec: TrainingSpec, side: int) -> Iterator[View]:
    """The views of picture ``number``: one centre crop or ``crop_variants`` random ones, and with
    ``flip`` each of them mirrored too."""
    resized = _resize_shorter_side(picture, side)
    for top, left in _corners(resized, number, spec, side):
        crop = resized.crop((left, top, left + side, top + side))
        yield View(crop, (picture.height, picture.width), (top, left))
        if spec.flip:
            mirrored_left = resized.width - left - side
            yield View(ImageOps.mirror(crop), (picture.height, picture.width), (top, mirrored_left))


def encode_views(
    picture: Image.Image, number: int, spec: TrainingSpec, components: Components, side: int
) -> Row:
    """``mean`` and ``std`` (V, C, H, W) and ``time_ids`` (V, 6) of picture ``number``.

    Through the VAE one by one: a batch changes last bits.
    """
    seen = list(views(picture, number, spec, side))
    moments = [latents.encode(components.vae, latents.to_pixels(view.image)[None]) for view in seen]
    return {
        "mean": torch.cat([each.mean_BCHW for each in moments]),
        "std": torch.cat([each.std_BCHW for each in moments]),
        "time_ids": torch.cat([view.time_ids for view in seen]),
    }


def _resize_shorter_side(picture: Image.Image, side: int) -> Image.Image:
    scale = side / min(picture.size)
    size = (max(side, round(picture.width * scale)), max(side, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS)


def _corners(
    resized: Image.Image, number: int, spec: TrainingSpec, side: int
) -> Iterator[tuple[int, int]]:
    """Top and left of each crop."""
    free_height, free_width = resized.height - side, resized.width - side
    if spec.crop == "center":
        yield free_height // 2, free_width // 2
        return
    seed = spec.seed or 0
    for variant in range(spec.crop_variants):
        ordinal = number * spec.crop_variants + variant
        yield (
            draws.choice(seed, "crop top", ordinal, free_height + 1),
            draws.choice(seed, "crop left", ordinal, free_width + 1),
        )
