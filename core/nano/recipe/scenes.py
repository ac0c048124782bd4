"""Small pictures with words that describe them: a cut-out on a background, framed as a crop.

Everything about a scene follows from (seed, ordinal), so any sample can be made again alone.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[Any]

SIDE = 64
"""Pixels of every finished picture."""
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "orange": (245, 133, 24),
    "yellow": (250, 215, 40),
    "lime": (160, 225, 40),
    "green": (34, 139, 52),
    "teal": (12, 128, 128),
    "cyan": (70, 220, 230),
    "blue": (36, 84, 220),
    "navy": (18, 24, 92),
    "purple": (122, 40, 170),
    "magenta": (226, 44, 196),
    "pink": (250, 175, 200),
    "brown": (118, 70, 32),
    "black": (14, 14, 16),
    "gray": (132, 134, 138),
    "white": (248, 248, 246),
}
TEXTURES = ("plain", "striped", "checkered", "dotted", "speckled")
TEXTURE_SHARES = (0.6, 0.1, 0.1, 0.1, 0.1)
FRAMED_SHARE = 0.3
"""Of scenes larger than their crop, whose subject the crop may cut."""
RESIZED_SHARE = 0.5
"""Of scenes that pretend to come from a file of another size."""
WHOLE = (64, 64)

_OVER = 2  # textures are drawn larger and averaged, so that their edges are soft


@dataclass(frozen=True)
class Cutout:
    """A subject on nothing: its name and an RGBA picture, square."""

    name: str
    picture: Image.Image


@dataclass(frozen=True)
class Content:
    """What is to be seen: a subject or none, on a ground."""

    subject: str | None
    colour: str
    texture: str


@dataclass(frozen=True)
class Scene:
    """A finished picture and all that SDXL is told of it (pixels, height first)."""

    content: Content
    pixels_HWC: Array  # uint8, SIDE x SIDE x 3
    original_hw: tuple[int, int]
    crop_top_left: tuple[int, int]

    @property
    def picture(self) -> Image.Image:
        return Image.fromarray(self.pixels_HWC)

    @property
    def time_ids(self) -> tuple[int, ...]:
        """SDXL's six numbers."""
        return (*self.original_hw, *self.crop_top_left, SIDE, SIDE)


def random_of(seed: int, ordinal: int) -> np.random.Generator:
    """The random numbers of one sample, whichever samples were made before."""
    return np.random.default_rng((seed, ordinal))


def compose(
    cutout: Cutout | None,
    random: np.random.Generator,
    *,
    colour: str | None = None,
    texture: str | None = None,
) -> Scene:
    """A scene; what is not given is drawn."""
    drawn_colour = str(random.choice(list(COLOURS)))
    drawn_texture = str(random.choice(TEXTURES, p=TEXTURE_SHARES))
    colour, texture = colour or drawn_colour, texture or drawn_texture
    frame_hw, crop_top_left = _framing(random)
    frame = background(colour, texture, frame_hw, random)
    if cutout:
        _paste(frame, cutout, random)
    top, left = crop_top_left
    crop = frame.crop((left, top, left + SIDE, top + SIDE))
    original_hw = frame_hw
    if random.random() < RESIZED_SHARE:
        ratio = float(np.exp(random.uniform(np.log(0.5), np.log(16))))
        original_hw = (round(frame_hw[0] * ratio), round(frame_hw[1] * ratio))
        crop = _as_enlarged(crop, ratio)
    return Scene(
        content=Content(cutout.name if cutout else None, colour, texture),
        pixels_HWC=np.asarray(crop),
        original_hw=original_hw,
        crop_top_left=crop_top_left,
    )


def background(
    colour: str, texture: str, hw: tuple[int, int], random: np.random.Generator
) -> Image.Image:
    """A ground of one colour, give or take a little; a texture alternates it with a shade of it."""
    base_C = np.clip(np.array(COLOURS[colour]) + random.normal(0, 5, 3), 0, 255)
    height, width = hw[0] * _OVER, hw[1] * _OVER
    share_HW = _pattern(texture, height, width, random)
    lighter = base_C.mean() < 110
    shade_C = base_C + (255 - base_C) * 0.35 if lighter else base_C * 0.68
    levels_HWC = base_C + share_HW[..., None] * (shade_C - base_C)
    ground = Image.fromarray(levels_HWC.round().astype(np.uint8))
    return ground.reduce(_OVER)


def _pattern(texture: str, height: int, width: int, random: np.random.Generator) -> Array:
    """Where the shade is, from 0 to 1, shape (H, W)."""
    y_HW, x_HW = np.mgrid[0:height, 0:width] / _OVER
    period = random.uniform(10, 16)
    x_HW, y_HW = x_HW + random.uniform(0, period), y_HW + random.uniform(0, period)
    share_HW: Array
    if texture == "striped":
        angle = random.choice([0, np.pi / 4, np.pi / 2, 3 * np.pi / 4])
        along_HW = x_HW * np.cos(angle) + y_HW * np.sin(angle)
        share_HW = along_HW % period < period / 2
    elif texture == "checkered":
        share_HW = (x_HW // period + y_HW // period) % 2
    elif texture == "dotted":
        off_HW = np.hypot(x_HW % period - period / 2, y_HW % period - period / 2)
        share_HW = off_HW < 0.27 * period
    elif texture == "speckled":
        coarse = random.random((height // 8 + 1, width // 8 + 1)) < 0.25
        share_HW = coarse.repeat(8, 0).repeat(8, 1)[:height, :width]
    else:  # a plain ground is lit a little from one side
        lit_HW = x_HW / width - 0.5 if random.random() < 0.5 else y_HW / height - 0.5
        share_HW = np.clip(lit_HW * random.uniform(-0.5, 0.5), 0, 1)
    return share_HW.astype(float)


def _framing(random: np.random.Generator) -> tuple[tuple[int, int], tuple[int, int]]:
    """Height and width of the frame, top and left of the crop in it."""
    if random.random() >= FRAMED_SHARE:
        return WHOLE, (0, 0)
    spare = int(random.integers(2, 33))
    offset = int(random.integers(0, spare + 1))
    if random.random() < 0.5:
        return (SIDE + spare, SIDE), (offset, 0)
    return (SIDE, SIDE + spare), (0, offset)


def _paste(frame: Image.Image, cutout: Cutout, random: np.random.Generator) -> None:
    side = round(SIDE * random.uniform(0.62, 0.94))
    subject = cutout.picture.resize((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    if random.random() < 0.5:
        subject = subject.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    # about the middle of the frame: how far off is what the crop's numbers tell
    shift = (SIDE - side) / 2 + 2
    left = (frame.width - side) / 2 + random.uniform(-shift, shift)
    top = (frame.height - side) / 2 + random.uniform(-shift, shift)
    frame.paste(subject, (round(left), round(top)), subject)


def _as_enlarged(crop: Image.Image, ratio: float) -> Image.Image:
    """What a file ``ratio`` times the size would have left of the crop."""
    if ratio >= 1:
        return crop
    small = max(8, round(SIDE * ratio))
    return crop.resize((small, small), Image.Resampling.BOX).resize(
        (SIDE, SIDE), Image.Resampling.BICUBIC
    )
