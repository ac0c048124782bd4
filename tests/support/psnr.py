"""How far two pictures are from each other."""

from pathlib import Path

import numpy as np
from PIL import Image


def psnr_db(one: Path, other: Path) -> float:
    """Peak signal to noise; 90 for equal ones."""
    pixels = [np.array(Image.open(path), dtype=float) for path in (one, other)]
    return float(10 * np.log10(255**2 / max(((pixels[0] - pixels[1]) ** 2).mean(), 255**2 / 1e9)))
