"""Pictures of people's own, as training and drawing see them."""

from pathlib import Path

from PIL import Image


def open_picture(path: Path) -> Image.Image:
    """In RGB; what was transparent is white."""
    with Image.open(path) as file:
        return on_white(file)


def on_white(picture: Image.Image) -> Image.Image:
    """In RGB; what was transparent is white."""
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")
