"""Whether anybody has committed since one last asked: SQLite counts it, PostgreSQL does not."""

import sqlite3

from sqlalchemy.engine import URL


class Commits:
    """SQLite's ``PRAGMA data_version``: four microseconds, and it sees every process of this host.

    It needs a connection of its own that is never inside a transaction. For one thread at a time.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._seen = -1

    @classmethod
    def of(cls, url: URL) -> "Commits | None":
        """None where nobody counts."""
        counts = url.get_backend_name() == "sqlite" and url.database
        return cls(url.database) if counts and url.database else None

    def any_new(self) -> bool:
        """True too where it cannot be told: then a query tells more."""
        try:
            (version,) = self._connected().execute("PRAGMA data_version").fetchone()
        except sqlite3.Error:
            self.close()
            return True
        before, self._seen = self._seen, version
        return bool(version != before)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection, self._seen = None, -1

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = sqlite3.connect(
                self._path, isolation_level=None, check_same_thread=False
            )
        return self._connection
