"""What is to go from the store goes, whoever dies or reads meanwhile."""

from datetime import timedelta

import pytest
from sqlalchemy import select

from core.artifacts import deletions
from core.artifacts.store import Store
from core.config import Settings
from core.db.engine import Database
from core.db.models import Dataset, Deletion, now
from core.errors import Conflict, NotFound


@pytest.fixture
def store(settings: Settings) -> Store:
    store = Store.of(settings)
    for key in ("jobs/a/1/x", "jobs/a/2/y", "jobs/b/1/x", "datasets/c/1.png", "datasets/c/2.png"):
        store.put_bytes(key, b"x")
    return store


def is_there(store: Store, key: str) -> bool:
    try:
        return store.size(key) > 0
    except NotFound:
        return False


def planned(database: Database) -> list[str]:
    with database.read() as session:
        return list(session.scalars(select(Deletion.prefix)))


def test_folders_and_files_go_and_their_neighbours_stay(
    any_database: Database, store: Store
) -> None:
    with any_database.write() as session:
        deletions.plan(session, "jobs/a/", "datasets/c/1.png", "datasets/c/none.png")
        deletions.plan_files(session, [{"store_key": "datasets/c/none"}])
    deletions.carry_out(any_database, store)
    assert not is_there(store, "jobs/a/1/x")
    assert not is_there(store, "jobs/a/2/y")
    assert not is_there(store, "datasets/c/1.png")
    assert is_there(store, "jobs/b/1/x")
    assert is_there(store, "datasets/c/2.png")
    assert planned(any_database) == []


def test_where_somebody_may_still_write_is_looked_after_for_a_while(
    any_database: Database, store: Store
) -> None:
    with any_database.write() as session:
        deletions.plan(session, "jobs/a/", until=now() + timedelta(minutes=1))
    deletions.carry_out(any_database, store)
    assert not is_there(store, "jobs/a/1/x")
    store.put_bytes("jobs/a/3/late", b"x")
    with any_database.write() as session:
        session.get_one(Deletion, "jobs/a/").until = now()
    deletions.carry_out(any_database, store)
    assert not is_there(store, "jobs/a/3/late")
    assert planned(any_database) == []


def write(database: Database, store: Store, *, keep: bool) -> None:
    with deletions.unless_kept(database, store, "datasets/d/"):
        store.put_bytes("datasets/d/1.png", b"x")
        deletions.carry_out(database, store)  # somebody else looks meanwhile
        assert is_there(store, "datasets/d/1.png")
        if keep:
            with database.write() as session:
                deletions.keep(session, "datasets/d/")


def test_what_is_kept_stays_and_what_is_not_goes(any_database: Database, store: Store) -> None:
    write(any_database, store, keep=False)
    assert not is_there(store, "datasets/d/1.png")
    write(any_database, store, keep=True)
    assert planned(any_database) == []
    deletions.carry_out(any_database, store)
    assert is_there(store, "datasets/d/1.png")


def test_what_comes_too_late_is_not_kept(any_database: Database, store: Store) -> None:
    with deletions.unless_kept(any_database, store, "datasets/d/"):
        store.put_bytes("datasets/d/1.png", b"x")
        with any_database.write() as session:
            session.get_one(Deletion, "datasets/d/").since = now()
        deletions.carry_out(any_database, store)
        assert not is_there(store, "datasets/d/1.png")
        store.put_bytes("datasets/d/2.png", b"x")
        with any_database.write() as session, pytest.raises(Conflict, match="longer than 1 day"):
            deletions.keep(session, "datasets/d/")
    assert not is_there(store, "datasets/d/2.png")
    assert planned(any_database) == []


def test_the_note_stays_until_the_log_is_empty(database: Database, store: Store) -> None:
    with database.write() as session:
        deletions.plan(session, "jobs/a/")
    with database.read() as reader:
        reader.get(Dataset, "none")
        with database.write() as session:
            deletions.plan(session, "jobs/b/")
        deletions.carry_out(database, store)
        assert sorted(planned(database)) == ["jobs/a/", "jobs/b/"]
    deletions.carry_out(database, store)
    assert planned(database) == []
