"""Cut-outs from a captioned folder: imagefolder form, ``metadata.jsonl`` beside the pictures."""

import json
from pathlib import Path

from PIL import Image

from core.nano.recipe.scenes import Cutout

SIDE = 96
"""Pixels kept of each picture: more than any scene shows."""


class UnfitFolder(Exception):
    """The message says what is missing where."""


def read(folder: Path, names: dict[str, str] | None = None) -> list[Cutout]:
    """The folder's pictures with alpha, squared and made small.

    Args:
        names: the subjects to take, caption to name; None takes all, named as captioned.

    Raises:
        UnfitFolder: there is no ``metadata.jsonl``, or a subject that is not in it.
    """
    metadata = folder / "metadata.jsonl"
    if not metadata.is_file():
        raise UnfitFolder(f"There is no {metadata}: a captioned folder has one.")
    rows = [json.loads(line) for line in metadata.read_text("utf-8").splitlines()]
    captions = {row["text"]: row["text"] for row in rows}
    taken = captions if names is None else names
    if missing := sorted(taken.keys() - captions.keys()):
        raise UnfitFolder(f"No picture in {folder} is captioned {missing[0]!r}.")
    return [
        Cutout(taken[row["text"]], _small(folder / row["file_name"]))
        for row in rows
        if row["text"] in taken
    ]


def subjects(path: Path) -> dict[str, str]:
    """Those that a file lists, one ``caption = name`` a line; # begins a remark."""
    lines = path.read_text("utf-8").splitlines()
    pairs = (line.partition(" = ") for line in lines if line and not line.startswith("#"))
    return {text: name or text for text, _, name in pairs}


def _small(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.convert("RGBA").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
