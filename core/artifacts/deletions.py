"""Files that no row names any more, written down in the transaction that took their rows away, and
those that no row names yet, written down before they come.

So whoever dies between a commit and the files' end, or between the files and a commit, leaves a
note of what is to go.
"""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from core import crash
from core.artifacts.store import Store
from core.db import traces
from core.db.engine import Database
from core.db.models import Deletion, now
from core.errors import Conflict

_PATIENCE = timedelta(days=1)
"""One upload may be hours of work."""


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


@contextmanager
def unless_kept(database: Database, store: Store, place: str) -> Iterator[None]:
    """Whatever the block writes to ``place`` goes again, unless a transaction in it calls ``keep``
    and is committed. Where this process dies, it goes a day later."""
    since = now() + _PATIENCE
    with database.write() as session:  # who is later than that may go on writing for a while
        session.add(Deletion(prefix=place, since=since, until=since + _PATIENCE))
    try:
        yield
    finally:
        with database.read() as session:  # an answer to a commit may have been lost
            kept = session.get(Deletion, place) is None
        if not kept:
            _delete(store, place)
            _forget(database, [place])


def keep(session: Session, place: str) -> None:
    """Rows of this transaction name what was written to ``place``.

    Raises:
        Conflict: it took longer than a day, and some of it may be gone.
    """
    mine = delete(Deletion).where(Deletion.prefix == place, Deletion.since > now())
    if session.scalar(mine.returning(Deletion.prefix)) is None:
        raise Conflict(
            f"This upload took longer than {_PATIENCE.days} day and was given up: send it again, "
            "in parts."
        )


def carry_out(database: Database, store: Store) -> None:
    """All that was planned, and what nobody kept. Two at a time do the same twice, and that is
    harmless."""
    with database.read() as session:
        due = or_(Deletion.since.is_(None), Deletion.since <= now())
        planned = session.execute(select(Deletion.prefix, Deletion.until).where(due)).all()
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
