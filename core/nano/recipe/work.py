"""The folder that a training keeps its files in, which fit one set of subjects and no other."""

import hashlib
from pathlib import Path

from core.nano.recipe.scenes import Cutout


class OtherSubjects(Exception):
    """The message says which folder was begun with others."""


def claim(folder: Path, cutouts: list[Cutout]) -> None:
    """Makes the folder and writes down for which subjects it is.

    Raises:
        OtherSubjects: it was begun with others; their corpus and weights would not fit.
    """
    folder.mkdir(parents=True, exist_ok=True)
    claimed, digest = folder / "subjects.sha256", _digest(cutouts)
    if not claimed.exists():
        claimed.write_text(digest)
    elif claimed.read_text() != digest:
        raise OtherSubjects(
            f"{folder} was begun with other subjects: give --data and --subjects as they were, "
            "or name another folder."
        )


def _digest(cutouts: list[Cutout]) -> str:
    digest = hashlib.sha256()
    for cutout in cutouts:
        digest.update(cutout.name.encode())
        digest.update(cutout.picture.tobytes())
    return digest.hexdigest()
