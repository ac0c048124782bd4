"""Files that no row names any more, written down in the transaction that took their rows away.

So whoever dies between the commit and the files' end leaves a note of what is to go.
"""

from collections.abc import Collection, Iterable
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from core import crash
from core.artifacts.store import Store
from core.db import traces
from core.db.engine import Database
from core.db.models import Deletion, now


def plan(session: Session, *places: str, until: datetime | None = None) -> None:
    """These are to go from the store. Call ``carry_out`` after the commit.

    Args:
        places: keys of files, and of folders with a slash at their end.
        until: so long somebody may still write there.
    """
    for place in places:
        session.merge(Deletion(prefix=place, until=until))


def plan_files(session: Session, files: Iterable[dict[str, str]]) -> None:
    """The same of files as rows name them."""
    plan(session, *(file["store_key"] for file in files))


def carry_out(database: Database, store: Store) -> None:
    """All that was planned. Two at a time do the same twice, and that is harmless."""
    with database.read() as session:
        planned = session.execute(select(Deletion.prefix, Deletion.until)).all()
    if not planned:
        return
    for place, _ in planned:
        _delete(store, place)
    crash.point("retention: files gone")
    if traces.erase(database):  # or it is tried again at the next look
        at = now()
        _forget(database, [place for place, until in planned if until is None or until <= at])


def _delete(store: Store, place: str) -> None:
    if place.endswith("/"):
        store.delete_prefix(place)
    else:
        store.delete(place)


def _forget(database: Database, places: Collection[str]) -> None:
    with database.write() as session:
        for place in places:
            session.execute(delete(Deletion).where(Deletion.prefix == place))
