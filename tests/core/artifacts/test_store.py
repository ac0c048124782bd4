"""The store over a real folder."""

import io
import os
from pathlib import Path

import pytest

from core.artifacts.store import CHUNK_BYTES, Store
from core.config import Settings
from core.errors import NotFound, Unavailable


@pytest.fixture
def store(settings: Settings) -> Store:
    return Store.of(settings)


def test_what_is_put_is_read_back(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"from a path")
    store.put_file("a/b/path", tmp_path / "file")
    store.put_file("a/b/stream", io.BytesIO(b"from a stream"))
    store.put_bytes("a/b/bytes", b"bytes")
    assert store.read("a/b/path") == b"from a path"
    assert store.read("a/b/stream") == b"from a stream"
    assert store.size("a/b/bytes") == 5
    store.fetch("a/b/path", tmp_path / "deep" / "copy")
    assert (tmp_path / "deep" / "copy").read_bytes() == b"from a path"


@pytest.mark.parametrize(("start", "end"), [(0, 0), (0, 1), (5, 9), (0, 10), (10, 10)])
def test_parts_are_half_open(start: int, end: int, store: Store) -> None:
    store.put_bytes("digits", b"0123456789")
    assert b"".join(store.open("digits", start, end)) == b"0123456789"[start:end]


def test_long_files_come_in_chunks(store: Store) -> None:
    data = os.urandom(CHUNK_BYTES * 2 + 7)
    store.put_bytes("long", data)
    chunks = list(store.open("long", 3, len(data)))
    assert [len(chunk) for chunk in chunks] == [CHUNK_BYTES, CHUNK_BYTES, 4]
    assert b"".join(chunks) == data[3:]


def test_a_missing_key_is_told_before_the_first_byte(store: Store) -> None:
    with pytest.raises(NotFound):
        store.open("nothing", 0, 5)
    with pytest.raises(NotFound):
        store.size("nothing")


def test_deleting_is_final_and_may_be_repeated(store: Store, settings: Settings) -> None:
    for key in ("jobs/1/a", "jobs/1/b/c", "jobs/10/a"):
        store.put_bytes(key, b"x")
    store.delete_prefix("jobs/1")
    assert store.size("jobs/10/a") == 1
    store.delete("jobs/10/a")
    store.delete("jobs/10/a")
    assert list(settings.blobs_path.iterdir()) == []


def test_it_says_when_it_is_away(store: Store, settings: Settings) -> None:
    store.check()
    settings.blobs_path.rmdir()
    with pytest.raises(Unavailable) as away:
        store.check()
    assert away.value.code == "store_unavailable"


def test_a_failed_write_is_unavailable_and_names_no_path(store: Store, settings: Settings) -> None:
    settings.blobs_path.rmdir()
    settings.blobs_path.write_text("not a folder")
    with pytest.raises(Unavailable) as away:
        store.put_bytes("a/b", b"x")
    assert str(settings.root) not in away.value.detail
