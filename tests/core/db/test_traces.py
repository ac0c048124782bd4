"""Rows that are gone leave nothing in the files of SQLite."""

from pathlib import Path

from sqlalchemy import delete

from core.config import Settings
from core.db import traces
from core.db.engine import Database
from core.db.models import Dataset, Image

COUNT = 300
"""Pictures: enough for pages of tables and indexes to be split."""


def bytes_of(database: Database) -> bytes:
    path = Path(str(database.engine.url.database))
    return b"".join(each.read_bytes() for each in path.parent.glob(f"{path.name}*"))


def make_dataset(database: Database, name: str) -> str:
    with database.write() as session:
        session.add(Dataset(id=name, owner="ada", name=name, kind="instance"))
        session.flush()
        session.add_all(_image(name, number) for number in range(COUNT))
    return name


def _image(dataset: str, number: int) -> Image:
    sha256 = f"{dataset}{number:060}"
    named = {"filename": "x.png", "store_key": f"key-{dataset}-{number}", "sha256": sha256}
    return Image(
        id=f"img_{dataset}{number}", dataset_id=dataset, width=1, height=1, bytes=1, **named
    )


def test_what_was_deleted_is_in_neither_file_nor_log(
    database: Database, settings: Settings
) -> None:
    kept, gone = make_dataset(database, "aaaa"), make_dataset(database, "bbbb")
    with database.write() as session:
        session.execute(delete(Image).where(Image.dataset_id == gone))
    assert b"bbbb0000" in bytes_of(database)
    assert traces.erase(database)
    found = bytes_of(database)
    assert b"bbbb0000" not in found
    assert b"key-bbbb" not in found
    assert found.count(f"key-{kept}-".encode()) == COUNT


def test_whoever_reads_is_not_waited_for_long(database: Database) -> None:
    make_dataset(database, "aaaa")
    with database.read() as session:
        assert session.get(Dataset, "aaaa")
        make_dataset(database, "bbbb")
        assert not traces.erase(database)
    assert traces.erase(database)


def test_postgresql_sees_to_it_itself(any_database: Database) -> None:
    assert traces.erase(any_database)
