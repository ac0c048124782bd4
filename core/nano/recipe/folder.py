"""Cut-outs from a captioned folder: imagefolder form, ``metadata.jsonl`` beside the pictures."""

import json
from pathlib import Path

from PIL import Image

from core.nano.recipe.scenes import Cutout

SUBJECTS = Path(__file__).with_name("subjects.txt")
SIDE = 96
"""Pixels kept of each picture: more than any scene shows."""


def read(folder: Path, names: dict[str, str] | None = None) -> list[Cutout]:
    """The folder's pictures with alpha, squared and made small.

    Args:
        names: the subjects to take, caption to name; None takes all, named as captioned.
    """
    rows = [
        json.loads(line) for line in (folder / "metadata.jsonl").read_text("utf-8").splitlines()
    ]
    taken = names or {row["text"]: row["text"] for row in rows}
    return [
        Cutout(taken[row["text"]], _small(folder / row["file_name"]))
        for row in rows
        if row["text"] in taken
    ]


def subjects() -> dict[str, str]:
    """Those of ``subjects.txt``: a folder's caption, and the name in our captions."""
    lines = SUBJECTS.read_text("utf-8").splitlines()
    pairs = (line.partition(" = ") for line in lines if not line.startswith("#"))
    return {text: name for text, _, name in pairs}


def _small(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.convert("RGBA").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
