"""Subjects drawn here: ten solids in sixteen colours, so that anyone can train from a clone.

Lengths are shares of the picture's side, the origin is its top left corner.
"""

from collections.abc import Callable
from functools import partial

from PIL import Image, ImageDraw, ImageFilter

from core.nano.recipe.scenes import COLOURS, Cutout

SIDE = 96
"""Pixels, as cut-outs from a folder."""
_OVER = 4  # Pillow's edges are hard

Colour = tuple[int, int, int]
Point = tuple[float, float]
Drawing = Callable[["_Pen", Colour], None]


def cutouts() -> list[Cutout]:
    """Every solid in every colour, named as in "red ball"."""
    return [
        Cutout(f"{colour_name} {name}", _draw(drawing, colour))
        for name, drawing in _SOLIDS.items()
        for colour_name, colour in COLOURS.items()
    ]


class _Pen:
    """Draws on nothing, lengths in shares of the side."""

    def __init__(self) -> None:
        self.picture = Image.new("RGBA", (SIDE * _OVER, SIDE * _OVER))
        self._draw = ImageDraw.Draw(self.picture)

    def face(self, points: list[Point], fill: Colour) -> None:
        self._draw.polygon([(x * SIDE * _OVER, y * SIDE * _OVER) for x, y in points], fill=fill)

    def disc(self, x: float, y: float, wide: float, high: float, fill: Colour | None) -> None:
        """An ellipse about (x, y); without a fill it is a hole."""
        box = (x - wide / 2, y - high / 2, x + wide / 2, y + high / 2)
        self._draw.ellipse([edge * SIDE * _OVER for edge in box], fill=fill or (0, 0, 0, 0))


def _draw(drawing: Drawing, colour: Colour) -> Image.Image:
    pen = _Pen()
    drawing(pen, colour)
    solid = pen.picture.reduce(_OVER)
    # a rim, or a white ball on white were nothing at all
    rim = Image.new("RGBA", solid.size, (60, 60, 66, 255))
    rim.putalpha(solid.getchannel("A").filter(ImageFilter.MaxFilter(3)))
    return Image.alpha_composite(rim, solid)


def _shade(colour: Colour, share: float) -> Colour:
    """Lighter for a share above 0, darker below."""
    towards = 255 if share > 0 else 0
    red, green, blue = (round(part + (towards - part) * abs(share)) for part in colour)
    return red, green, blue


def _ball(pen: _Pen, colour: Colour) -> None:
    for step in range(20):
        size, off = 0.8 * (1 - step / 24), 0.09 * step / 20
        pen.disc(0.5 - off, 0.5 - off, size, size, _shade(colour, -0.35 + 0.75 * step / 20))


def _cube(pen: _Pen, colour: Colour) -> None:
    top, left, middle, right = (0.5, 0.08), (0.12, 0.28), (0.5, 0.48), (0.88, 0.28)
    pen.face([top, left, middle, right], _shade(colour, 0.4))
    pen.face([left, middle, (0.5, 0.92), (0.12, 0.72)], colour)
    pen.face([middle, right, (0.88, 0.72), (0.5, 0.92)], _shade(colour, -0.4))


def _cone(pen: _Pen, colour: Colour) -> None:
    pen.disc(0.5, 0.8, 0.72, 0.24, _shade(colour, -0.2))
    for step in range(18):
        left, right = 0.14 + 0.04 * step, 0.14 + 0.04 * (step + 1)
        pen.face([(0.5, 0.06), (left, 0.81), (right, 0.81)], _shade(colour, 0.35 - 0.04 * step))


def _cylinder(pen: _Pen, colour: Colour) -> None:
    pen.disc(0.5, 0.8, 0.6, 0.22, _shade(colour, -0.35))
    for step in range(20):
        left, right = 0.2 + 0.03 * step, 0.2 + 0.03 * (step + 1)
        corners = [(left, 0.2), (right, 0.2), (right, 0.8), (left, 0.8)]
        pen.face(corners, _shade(colour, 0.3 - 0.035 * step))
    pen.disc(0.5, 0.2, 0.6, 0.22, _shade(colour, 0.45))


def _hoop(pen: _Pen, colour: Colour) -> None:
    pen.disc(0.5, 0.5, 0.84, 0.84, _shade(colour, -0.3))
    pen.disc(0.48, 0.48, 0.76, 0.76, _shade(colour, 0.15))
    pen.disc(0.5, 0.5, 0.46, 0.46, None)


def _polygon(points: list[Point], pen: _Pen, colour: Colour) -> None:
    """Flat, on a darker copy of itself that makes it thick."""
    pen.face([(x + 0.05, y + 0.05) for x, y in points], _shade(colour, -0.45))
    pen.face(points, _shade(colour, 0.1))


_SOLIDS: dict[str, Drawing] = {
    "ball": _ball,
    "cube": _cube,
    "cone": _cone,
    "cylinder": _cylinder,
    "hoop": _hoop,
    "tile": partial(_polygon, [(0.14, 0.14), (0.82, 0.14), (0.82, 0.82), (0.14, 0.82)]),
    "triangle": partial(_polygon, [(0.48, 0.1), (0.9, 0.84), (0.06, 0.84)]),
    "kite": partial(_polygon, [(0.48, 0.06), (0.78, 0.4), (0.48, 0.92), (0.18, 0.4)]),
    "cross": partial(
        _polygon,
        [
            *[(0.36, 0.1), (0.6, 0.1), (0.6, 0.36), (0.86, 0.36), (0.86, 0.6), (0.6, 0.6)],
            *[(0.6, 0.86), (0.36, 0.86), (0.36, 0.6), (0.1, 0.6), (0.1, 0.36), (0.36, 0.36)],
        ],
    ),
    "arrow": partial(
        _polygon,
        [(0.06, 0.38), (0.5, 0.38), (0.5, 0.16), (0.9, 0.5), (0.5, 0.82), (0.5, 0.6), (0.06, 0.6)],
    ),
}
