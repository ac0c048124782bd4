"""What a database file keeps of rows that are gone.

SQLite overwrites them in its file (``secure_delete``), and writes to its log before, which keeps
what pages were until it is begun anew. PostgreSQL lets go of them at its next vacuum.
"""

import sqlite3
from contextlib import closing

from core.db.engine import Database

PATIENCE_SECONDS = 1.0
"""For those who read meanwhile: nobody can write until they have ended."""


def erase(database: Database) -> bool:
    """Empties SQLite's log; False where somebody read on and it has to be tried again."""
    url = database.engine.url
    if url.get_backend_name() != "sqlite" or not url.database:
        return True
    try:
        with closing(sqlite3.connect(url.database, timeout=PATIENCE_SECONDS)) as connection:
            (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.OperationalError:  # locked, for longer than that
        return False
    return not busy
