"""The database: one engine a process, read and write transactions by name.

Neither puts what a statement carried into its errors, which are logged: it may be a secret.
SQLite runs in WAL with synchronous=FULL (an accepted job survives a power cut) and takes its write
lock at BEGIN: a transaction that reads first and writes later is refused at once by SQLite,
whatever the busy timeout says. PostgreSQL needs none of that.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError, TimeoutError
from sqlalchemy.orm import Session

from core.config import Settings
from core.errors import DiskFull, Unavailable
from core.files.space import is_full_disk

BUSY_TIMEOUT_MS = 30_000
CONNECT_SECONDS = 5
_NOTICE_A_CUT = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""Within half a lease; by default a read from a host that is gone waits for two hours."""
_LETS_GO_OF_LOCKS = " ".join(
    f"-c {name}={value}"
    for name, value in {
        "idle_in_transaction_session_timeout": "20s",
        "lock_timeout": "20s",
        "tcp_keepalives_idle": 10,
        "tcp_keepalives_interval": 5,
        "tcp_keepalives_count": 3,
    }.items()
)
"""What the server does about us: a process that is frozen or cut off inside a transaction would
hold its rows, and whoever wants to give its jobs back would wait for it."""
CONNECTIONS = 20
"""Kept open once they were needed; what is needed beyond them is opened and closed each time."""
_WRITE = "stillroom_write"


class Database:
    """Transactions on the one database. Safe to share between threads."""

    def __init__(self, url: str) -> None:
        self.engine = _make_engine(url)
        self._writing = self.engine.execution_options(**{_WRITE: True})
        one_by_one = self.engine.dialect.name == "sqlite"
        self._turn = threading.Lock() if one_by_one else nullcontext()

    @classmethod
    def of(cls, settings: Settings) -> "Database":
        return cls(settings.effective_database_url)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """One consistent look; anything written is thrown away."""
        with _away_is_unavailable(), Session(self.engine) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One short transaction, committed when the block ends well; never while a GPU works.

        On SQLite the threads of a process take turns by a lock of ours: SQLite's own way to wait is
        to sleep and look again, up to 100 ms at a time.
        """
        with (
            _away_is_unavailable(),
            self._turn,
            Session(self._writing, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    def dispose(self) -> None:
        self.engine.dispose()


@contextmanager
def _away_is_unavailable() -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError, InternalError, TimeoutError) as error:
        if is_full_disk(error):
            raise DiskFull from error
        raise Unavailable(
            "The database does not answer; try again in a moment.",
            code="database_unavailable",
            retry_after_seconds=5,
        ) from error


def _make_engine(url: str) -> Engine:
    if make_url(url).get_backend_name() != "sqlite":
        return create_engine(
            url,
            hide_parameters=True,
            pool_pre_ping=True,
            pool_size=CONNECTIONS,
            connect_args={
                "connect_timeout": CONNECT_SECONDS,
                "options": _LETS_GO_OF_LOCKS,
                **_NOTICE_A_CUT,
            },
        )
    engine = create_engine(
        url,
        hide_parameters=True,
        pool_size=CONNECTIONS,
        connect_args={"timeout": BUSY_TIMEOUT_MS / 1000},
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # Python's driver would defer BEGIN; we emit our own
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA secure_delete = ON")  # rows that are gone leave no bytes behind
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writing = connection.get_execution_options().get(_WRITE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
