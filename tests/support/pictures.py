"""Small pictures that tests draw for themselves."""

from pathlib import Path

import numpy as np
from PIL import Image


def draw(number: int, width: int = 64, height: int = 64) -> Image.Image:
    """A disc before a gradient; each number is another picture."""
    rows, columns = np.mgrid[0:height, 0:width]
    x, y = columns / width, rows / height
    levels = np.stack([255 * x, 255 * y, np.full_like(x, 40 * number % 256)], axis=-1)
    levels[(x - 0.5) ** 2 + (y - 0.4 - 0.05 * number) ** 2 < 0.07] = (230, 90, 30)
    return Image.fromarray(levels.astype(np.uint8))


def write(folder: Path, count: int = 3) -> list[Path]:
    """``count`` different PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        draw(number).save(path)
    return paths
