"""Disks that are full or broken."""

import errno
from collections.abc import Callable
from typing import Any

import pytest

from core.config import Settings
from core.db.engine import Database
from core.db.models import Job, Worker, now
from tests.worker.drain.scene import (
    Play,
    device_of,
    reasons,
)
from worker import inputs
from worker.drain import Drain


def check_it_waits_for_room(job: Job, database: Database) -> None:
    assert (job.state, job.attempt, job.losses, job.pauses) == ("queued", 1, 0, 1)
    assert job.not_before is not None
    assert 30 < (job.not_before - now()).total_seconds() <= 60
    assert reasons(database, job) == ["disk_full"]


def test_a_full_disk_is_no_failure(
    drain: Drain, play: Play, look: Callable[[Job], Job], database: Database
) -> None:
    job, next_one = play("full disk"), play("draw")
    drain.until_empty()
    check_it_waits_for_room(look(job), database)
    assert look(next_one).state == "succeeded"


def test_a_disk_that_the_inputs_do_not_fit_on_is_no_failure(
    drain: Drain,
    play: Play,
    look: Callable[[Job], Job],
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fill_up(*_: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(inputs, "lay_out", fill_up)
    job = play("draw")
    drain.until_empty()
    check_it_waits_for_room(look(job), database)


def test_with_too_little_room_nothing_is_claimed(
    drain: Drain, play: Play, look: Callable[[Job], Job], settings: Settings
) -> None:
    drain.settings = settings.model_copy(update={"min_free_bytes": 2**60})
    job = play("draw")
    assert not drain.has_work()
    drain.until_empty()
    assert (look(job).state, look(job).attempt) == ("queued", 0)


def test_a_disk_of_this_host_that_fails_leaves_the_job_to_others(
    drain: Drain,
    play: Play,
    look: Callable[[Job], Job],
    database: Database,
    worker: Worker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = play("draw")

    def break_down(*_: Any) -> Any:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(inputs, "lay_out", break_down)
    drain.until_empty()
    assert (look(job).state, reasons(database, job)) == ("queued", ["runner_lost"])
    assert device_of(database, worker).lost == [[job.id]]
