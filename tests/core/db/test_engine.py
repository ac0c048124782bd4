"""Transactions end, one way or the other."""

import time

import pytest
from sqlalchemy import text

from core.db.engine import Database
from core.errors import Unavailable
from tests.support.databases import postgres_database


def test_postgres_ends_a_transaction_that_is_left_alone() -> None:
    """Of a process that is frozen, say: it would hold its rows for hours."""
    with postgres_database() as database:
        assert shown(database, "idle_in_transaction_session_timeout") == "20s"
        assert shown(database, "lock_timeout") == "20s"
        with pytest.raises(Unavailable):
            freeze_inside_a_transaction(database)
        with database.read() as session:
            assert session.scalar(text("SELECT 1")) == 1


def freeze_inside_a_transaction(database: Database) -> None:
    with database.write() as session:
        session.execute(text("SET LOCAL idle_in_transaction_session_timeout = 100"))
        time.sleep(0.5)
        session.execute(text("SELECT 1"))


def shown(database: Database, name: str) -> str:
    with database.read() as session:
        return str(session.scalar(text(f"SHOW {name}")))
