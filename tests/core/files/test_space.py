"""The ways in which libraries say that a disk is full."""

import errno
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from core.db.engine import Database
from core.db.models import now
from core.errors import DiskFull
from core.files.space import free_bytes, is_full_disk
from core.owners import service as owners


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("[enforce fail at inline_container.cc] No space left on device (os error 28)"),
        OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full")),
    ],
)
def test_a_full_disk_is_known_by_number_or_words(error: Exception) -> None:
    assert is_full_disk(error)


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "Input/output error"), OSError("full"), ValueError("28")]
)
def test_other_errors_are_none(error: Exception) -> None:
    assert not is_full_disk(error)


def test_a_real_device_that_is_full_says_so() -> None:
    with pytest.raises(OSError, match="space") as full:
        Path("/dev/full").write_bytes(b"x")
    assert is_full_disk(full.value)


def test_a_database_that_may_not_grow_is_a_full_disk(database: Database) -> None:
    def fill() -> None:
        with database.write() as session:
            session.connection().exec_driver_sql("PRAGMA max_page_count = 1")  # it keeps its size
            for number in range(10_000):
                owners.create(session, owner="ada", name=f"{number} {now()}", scopes=["read"])
            session.flush()

    with pytest.raises(DiskFull, match="disk is full") as full:
        fill()
    assert (full.value.status, full.value.code) == (503, "disk_full")
    with database.read() as session:
        assert owners.list_page(session) == ([], None)


def test_free_bytes_are_those_of_the_folders_disk(tmp_path: Path) -> None:
    assert free_bytes(tmp_path) > 1000
