"""UNets of artifacts on this disk: fetched once, and kept while they are used.

Workers of a home share the folder. A job works with hard links of its own, so that whatever another
worker sweeps harms nobody.
"""

import os
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from core.artifacts.service import StoredFile
from core.artifacts.store import Store
from core.ids import new_id

KEPT = 4
"""Folders, the last used: SSD-1B's are of 2.7 GB."""
ABANDONED_SECONDS = 24 * 3600.0
"""After which a fetch that has not ended is of a worker that has died."""


def lay_out(
    shared: Path, artifact_id: str, files: Sequence[StoredFile], store: Store, into: Path
) -> None:
    """Puts the artifact's UNet into ``into``, a new folder of the job's on the same file system as
    ``shared``; it is fetched if ``shared`` has it not."""
    place = shared / artifact_id
    if not _link(place, files, into):
        _fetch(place, files, store, into)
    _sweep(shared)


def _link(place: Path, files: Sequence[StoredFile], into: Path) -> bool:
    """False where the folder is not there, or goes away meanwhile."""
    into.mkdir(parents=True, exist_ok=True)
    try:
        for file in files:
            mine = into / _name(file)
            mine.unlink(missing_ok=True)
            os.link(place / _name(file), mine)
        os.utime(place)
    except FileNotFoundError:
        return False
    return True


def _fetch(place: Path, files: Sequence[StoredFile], store: Store, into: Path) -> None:
    """For the job, then for those to come."""
    aside = place.with_name(f".{new_id('art')}")
    aside.mkdir(parents=True)
    for file in files:
        store.fetch(file.store_key, aside / _name(file))
    _link(aside, files, into)
    try:
        aside.rename(place)
    except OSError:  # another worker of this home was faster
        shutil.rmtree(aside, ignore_errors=True)


def _name(file: StoredFile) -> str:
    return Path(file.path).name


def _sweep(shared: Path) -> None:
    """Lets go of those that were not used for longest, and of what a dead worker left."""
    used: list[tuple[float, Path]] = []
    for path in shared.iterdir():
        with suppress(FileNotFoundError):  # another worker sweeps too
            used.append((path.stat().st_mtime, path))
    whole = sorted(entry for entry in used if not entry[1].name.startswith("."))
    abandoned = [
        path
        for at, path in used
        if path.name.startswith(".") and at < time.time() - ABANDONED_SECONDS
    ]
    for path in [*abandoned, *(path for _, path in whole[:-KEPT])]:
        aside = path.with_name(f".{new_id('art')}")
        with suppress(FileNotFoundError):
            path.rename(aside)  # first out of sight: what has the name is whole
            shutil.rmtree(aside, ignore_errors=True)
