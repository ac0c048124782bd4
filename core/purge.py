"""What is left to do once rows are gone: files of the store, and what this home made of them.

Each home sees to itself, by what its files are called: the ids of artifacts, and for rows of the
training cache the rolls of the datasets that use them. So nobody has to be told, and a host that
was away finds out when it is back.
"""

import logging
from collections.abc import Collection
from pathlib import Path

from sqlalchemy import select

from core import crash
from core.artifacts import deletions
from core.artifacts.store import Store
from core.config import Settings
from core.datasets import removal
from core.datasets.service import NOBODY
from core.db.engine import Database
from core.db.models import Artifact, Dataset
from core.errors import Unavailable
from core.files import aside, roll

log = logging.getLogger(__name__)

_CACHED = "*.safetensors"


def finish(database: Database, store: Store, settings: Settings) -> None:
    """After a commit that took rows away, or gave them to nobody. What cannot be done now is done
    at retention's next look."""
    try:
        removal.sweep(database)
        sweep_home(database, settings)
        deletions.carry_out(database, store)
    except (Unavailable, OSError) as error:
        log.warning("what was deleted is not all gone yet: %s", error)


def sweep_home(database: Database, settings: Settings, *, wholly: bool = False) -> None:
    """Of what is gone, this disk keeps nothing.

    Args:
        wholly: of the cache, look for what no roll names even where no dataset is gone.
    """
    for shared in (settings.loras_path, settings.unets_path):
        aside.sweep(shared)
        kept = [path.name for path in shared.glob("art_*")]
        for artifact_id in _gone(database, Artifact, kept):
            aside.discard(shared / artifact_id)
    for cache in settings.cache_path.glob("*"):
        _sweep_cache(database, cache, wholly=wholly)


def _sweep_cache(database: Database, cache: Path, *, wholly: bool) -> None:
    """Of one owner."""
    roll.strike(cache, _gone(database, Dataset, roll.users(cache)))
    crash.point("retention: rolls struck off")
    if wholly or roll.is_due(cache):
        roll.sweep(cache, _CACHED)


def _gone(
    database: Database, table: type[Artifact | Dataset], ids: Collection[str]
) -> Collection[str]:
    """Those that have no row, or one that is nobody's."""
    if not ids:
        return ()
    with database.read() as session:
        kept = select(table.id).where(table.id.in_(ids), table.owner != NOBODY)
        return {*ids} - {*session.scalars(kept)}
