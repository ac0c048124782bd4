"""Files of artifacts on this disk: fetched once, and kept while they are used.

Workers of a home share the folder. A job works with hard links of its own, so that whatever another
worker sweeps harms nobody.
"""

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from core.artifacts import service as artifacts
from core.artifacts.service import StoredFile
from core.artifacts.store import Store
from core.db.models import Artifact
from core.files import aside
from core.ids import new_id

UNETS = 4
"""Kept, the last used: SSD-1B's are of 2.7 GB."""
LORAS = 64
"""Likewise: of 25 to 100 MB for SSD-1B."""


def lay_out(
    shared: Path, artifact: Artifact, store: Store, into: Path, *, kept: int
) -> list[StoredFile]:
    """Puts the artifact's files into ``into``, a new folder of the job's on the same file system as
    ``shared``; they are fetched if ``shared`` has them not, which keeps so many artifacts."""
    place, files = shared / artifact.id, artifacts.files_of(artifact)
    if not _link(place, files, into):
        _fetch(place, files, store, into)
        _sweep(shared, kept)
    return files


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
    filling = place.with_name(f".{new_id('art')}")
    filling.mkdir(parents=True)
    for file in files:
        store.fetch(file.store_key, filling / _name(file))
    _link(filling, files, into)
    try:
        filling.rename(place)
    except OSError:  # another worker of this home was faster
        shutil.rmtree(filling, ignore_errors=True)


def _name(file: StoredFile) -> str:
    return Path(file.path).name


def _sweep(shared: Path, kept: int) -> None:
    """Lets go of those that were not used for longest, and of what a dead worker left."""
    aside.sweep(shared)
    used: list[tuple[float, Path]] = []
    for path in shared.glob("art_*"):
        with suppress(FileNotFoundError):  # another worker sweeps too
            used.append((path.stat().st_mtime, path))
    for _, path in sorted(used)[:-kept]:
        aside.discard(path)
