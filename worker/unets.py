"""UNets of artifacts on this disk: fetched once, and kept while they are used."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from core.artifacts.service import StoredFile
from core.artifacts.store import Store

KEPT = 4
"""Folders, the last used: SSD-1B's are of 2.7 GB."""


def lay_out(folder: Path, artifact_id: str, files: Sequence[StoredFile], store: Store) -> Path:
    """Where the artifact's UNet lies in ``folder``, fetched if it was not there."""
    place = folder / artifact_id
    if not place.is_dir():
        aside = folder / f".{artifact_id}.{os.getpid()}.part"
        shutil.rmtree(aside, ignore_errors=True)
        for file in files:
            store.fetch(file.store_key, aside / Path(file.path).name)
        _take_its_place(aside, place)
    os.utime(place)
    _sweep(folder)
    return place


def _take_its_place(aside: Path, place: Path) -> None:
    try:
        aside.rename(place)
    except OSError:  # another worker of this home was faster
        if not place.is_dir():
            raise
        shutil.rmtree(aside)


def _sweep(folder: Path) -> None:
    """Lets go of those that were not used for longest."""
    there = [path for path in folder.iterdir() if not path.name.startswith(".")]
    for path in sorted(there, key=lambda path: path.stat().st_mtime)[:-KEPT]:
        shutil.rmtree(path, ignore_errors=True)
