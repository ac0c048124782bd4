"""Notices that something was written: by SQLite's own counter, or just by looking in time."""

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing

from core.config import Settings
from worker.vital import VitalThread


class Watch:
    """Calls ``on_change`` after commits of other connections, and every ``poll_seconds`` anyway.

    ``PRAGMA data_version`` costs four microseconds and sees each commit of every process of this
    host. It needs a connection of its own that is never inside a transaction.
    """

    def __init__(self, settings: Settings, on_change: Callable[[], None]) -> None:
        self.settings = settings
        self.on_change = on_change
        self._stopping = threading.Event()
        target = self._poll if settings.database_url else self._watch_file
        self._thread = VitalThread(target, "watch")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _poll(self) -> None:
        while not self._stopping.wait(self.settings.poll_seconds):
            self.on_change()

    def _watch_file(self) -> None:
        path = self.settings.sqlite_path
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            seen, looks = -1, 0
            looks_a_poll = max(1, round(self.settings.poll_seconds / self.settings.watch_seconds))
            while not self._stopping.wait(self.settings.watch_seconds):
                (version,) = connection.execute("PRAGMA data_version").fetchone()
                looks += 1
                if version != seen or looks >= looks_a_poll:
                    seen, looks = version, 0
                    self.on_change()
