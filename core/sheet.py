"""The comparison sheet: before, after, and the pictures that were learnt from, with captions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

LARGE, SMALL, GAP, LINE = 320, 192, 24, 34
"""Pixels. The nano bases draw 64 px; enlarged without smoothing, each of theirs stays visible."""
PAPER, INK = (250, 249, 246), (40, 40, 46)


@dataclass(frozen=True)
class Tile:
    picture: Path
    caption: str
    side: int


def compose(rows: Sequence[Sequence[Tile]], title: str, path: Path) -> Path:
    """Writes rows of captioned pictures under a title."""
    width = max(sum(tile.side + GAP for tile in row) for row in rows) + GAP
    height = sum(row[0].side + LINE + GAP for row in rows) + LINE + 2 * GAP
    sheet = Image.new("RGB", (width, height), PAPER)
    _write(sheet, (GAP, GAP), title, width - 2 * GAP, size=22)
    top = LINE + 2 * GAP
    for row in rows:
        _draw_row(sheet, row, top)
        top += row[0].side + LINE + GAP
    sheet.save(path)
    return path


def _draw_row(sheet: Image.Image, row: Sequence[Tile], top: int) -> None:
    left = GAP
    for tile in row:
        sheet.paste(_enlarged(tile), (left, top))
        _write(sheet, (left, top + tile.side + 8), tile.caption, tile.side, size=17)
        left += tile.side + GAP


def _enlarged(tile: Tile) -> Image.Image:
    with Image.open(tile.picture) as picture:
        upright = ImageOps.exif_transpose(picture).convert("RGB")
    larger = min(upright.size) > tile.side
    smoothing = Image.Resampling.LANCZOS if larger else Image.Resampling.NEAREST
    return ImageOps.fit(upright, (tile.side, tile.side), smoothing)


def _write(
    sheet: Image.Image, place: tuple[int, int], text: str, width: int, *, size: float
) -> None:
    """One line, cut where it would not fit."""
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size)
    shown = text
    while pen.textlength(shown, font) > width:
        text = text[:-1]
        shown = f"{text}..."
    pen.text(place, shown, fill=INK, font=font)
