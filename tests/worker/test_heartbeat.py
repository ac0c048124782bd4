"""Beats that fail."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy.orm import Session

from core.config import Settings
from core.db.engine import Database
from core.errors import Unavailable
from core.workers.service import BeatAnswer, Condition
from tests.support import jobs as make
from tests.support.server import wait_until
from worker.heartbeat import Heartbeat


def test_after_a_beat_that_failed_the_next_one_comes_soon(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten seconds later a lease's share would be over."""
    worker, answers, refusals = make.register(database, settings), list[BeatAnswer](), iter([1])
    real = Database.write

    @contextmanager
    def away_at_first(self: Database) -> Iterator[Session]:
        if next(refusals, None):
            raise Unavailable("The database does not answer.")
        with real(self) as session:
            yield session

    monkeypatch.setattr(Database, "write", away_at_first)
    heartbeat = Heartbeat(
        database,
        settings.model_copy(update={"beat_seconds": 10.0}),
        worker.id,
        condition=lambda: Condition(chip=None, bases=[]),
        on_answer=answers.append,
        on_silence=lambda: None,
    )
    heartbeat.start()
    wait_until(lambda: len(answers) == 1, 5, "it was answered")
    heartbeat.stop()
    assert answers[0].known
