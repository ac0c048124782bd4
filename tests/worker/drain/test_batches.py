"""Drawings that are taken together."""

import errno
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from core.artifacts import service as artifacts
from core.artifacts.store import Store
from core.config import Settings
from core.db.engine import Database
from core.db.models import Job, Rate, Worker
from core.errors import ServiceError
from core.jobs import service as jobs
from tests.support.server import wait_until
from tests.worker.drain.scene import (
    Play,
    attend_until_it_ends,
    device_of,
    in_background,
    lines_of,
    running,
)
from worker import pace
from worker.drain import Drain
from worker.link import Link


def test_drawings_that_are_taken_together_end_each_for_itself(
    drain: Drain,
    play_together: Play,
    look: Callable[[Job], Job],
    database: Database,
    settings: Settings,
) -> None:
    played = [play_together(script) for script in ("draw", "long", "fail", "draw")]
    thread = in_background(drain)
    wait_until(lambda: look(played[1]).progress["step"] > 0, 60, "the long one runs")
    assert sorted(drain.jobs) == sorted(job.id for job in played)
    drain.heed({played[1].id: "cancel"})
    thread.join()
    assert [look(job).state for job in played] == ["succeeded", "cancelled", "failed", "succeeded"]
    assert [look(job).attempt for job in played] == [1] * 4
    for job in played[::3]:
        with database.read() as session:
            (image,) = artifacts.list_made_by(session, job.id)[0]
        assert look(job).result == {"images": [image.id]}
    assert not list(settings.scratch_path.glob("*/*"))


def test_who_was_lost_with_others_is_tried_alone_and_the_device_is_blamed_once(
    drain: Drain,
    play_together: Play,
    look: Callable[[Job], Job],
    database: Database,
    settings: Settings,
    worker: Worker,
    link: Link,
) -> None:
    """One that kills its runner takes no stranger along."""
    drain.settings = settings.model_copy(update={"retry_seconds": [0.0]})
    harmless, poison, other = (play_together(script) for script in ("draw", "die", "draw"))
    for _ in range(10):
        assert link.ready.wait(30)
        drain.until_empty()
    assert [look(job).state for job in (harmless, poison, other)] == [
        *("succeeded", "failed", "succeeded"),
    ]
    assert look(poison).attempt == 3
    assert look(other).attempt == 2
    assert device_of(database, worker).state == "open"


def test_what_the_runner_says_of_one_of_a_batch_is_told_to_its_owner_alone(
    drain: Drain, play_together: Play, look: Callable[[Job], Job], database: Database
) -> None:
    played = [play_together(script) for script in ("long", "long")]
    thread = in_background(drain)
    wait_until(lambda: look(played[0]).progress["step"] > 0, 60, "the first one runs")
    said = {"level": "error", "message": "a secret of the first", "job": played[0].id}
    drain.link.on_stderr(json.dumps(said))
    drain.link.on_stderr("nobody knows whose\n")
    drain.stop()
    thread.join()
    assert lines_of(database, played[0]) == ["error: a secret of the first"]
    assert lines_of(database, played[1]) == []


def test_what_was_drawn_in_company_measures_nothing(
    drain: Drain, play_together: Play, look: Callable[[Job], Job], database: Database
) -> None:
    played = [play_together("draw") for _ in range(2)]
    drain.until_empty()
    assert [look(job).state for job in played] == ["succeeded", "succeeded"]
    with database.read() as session:
        assert session.query(Rate).all() == []


def test_of_a_batch_only_silence_about_all_is_a_hang(
    drain: Drain,
    play_together: Play,
    look: Callable[[Job], Job],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The scripted runner sees to one after another: the second waits for the first."""
    monkeypatch.setattr(pace, "_BEFORE_A_STEP", 1)
    drain.settings = drain.settings.model_copy(update={"watchdog_seconds": 2.0})
    played = [play_together(script) for script in ("long", "draw")]
    thread = in_background(drain)
    wait_until(lambda: look(played[0]).progress["step"] > 0, 60, "the first one runs")
    began = time.monotonic()
    while time.monotonic() < began + 3:
        drain.attend()
        time.sleep(0.02)
    assert [look(job).state for job in played] == ["running", "running"]
    drain.heed({played[0].id: "cancel"})
    thread.join()
    assert [look(job).state for job in played] == ["cancelled", "succeeded"]
    assert look(played[1]).losses == 0


def cancel(drain: Drain, database: Database, job: Job) -> None:
    with database.write() as session:
        jobs.cancel(session, job.owner, job.id)
    drain.heed({job.id: "cancel"})


def test_a_cancel_that_is_not_heeded_ends_that_one_of_a_batch_alone(
    drain: Drain, play_together: Play, look: Callable[[Job], Job], database: Database, link: Link
) -> None:
    """The runner sees to the first; it does not look at the second meanwhile."""
    drain.settings = drain.settings.model_copy(update={"grace_seconds": 0.2})
    runner = link._process
    first, second = (play_together("long") for _ in range(2))
    thread = running(drain, look, first)
    cancel(drain, database, second)
    while look(second).state == "running":
        drain.attend()
        time.sleep(0.02)
    step = look(first).progress["step"]
    drain.attend()
    wait_until(lambda: look(first).progress["step"] > step, 60, "it goes on")
    assert (look(first).state, look(first).attempt) == ("running", 1)
    drain.stop()
    thread.join(60)
    assert (look(first).state, look(second).state) == ("queued", "cancelled")
    assert link._process is runner


def test_a_runner_that_hears_of_none_of_a_batch_is_ended(
    drain: Drain, play_together: Play, look: Callable[[Job], Job], database: Database, link: Link
) -> None:
    changes = {"grace_seconds": 0.2, "watchdog_seconds": 0.2}
    drain.settings = drain.settings.model_copy(update=changes)
    runner = link._process
    hung, waiting = (play_together(script) for script in ("hang", "draw"))
    thread = running(drain, look, hung)
    cancel(drain, database, waiting)
    attend_until_it_ends(drain, thread)
    assert (look(waiting).state, look(waiting).losses) == ("cancelled", 0)
    assert (look(hung).state, look(hung).losses) == ("queued", 1)
    assert link._process is not runner


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (ServiceError("No.", code="odd"), "failed"),
        (OSError(errno.ENOSPC, "No space left on device"), "queued"),
        (OSError(errno.EROFS, "Read-only file system"), "queued"),
        (ValueError("a secret of ours"), "failed"),
    ],
)
def test_what_the_worker_meets_at_one_of_a_batch_ends_that_one_alone(
    error: Exception,
    state: str,
    drain: Drain,
    play_together: Play,
    look: Callable[[Job], Job],
    link: Link,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runner, put_file = link._process, Store.put_file
    bad, good = (play_together(script) for script in ("draw on", "long"))

    def put(store: Store, key: str, *arguments: Any) -> None:
        if bad.id in key:
            raise error
        put_file(store, key, *arguments)

    monkeypatch.setattr(Store, "put_file", put)
    thread = in_background(drain)
    wait_until(lambda: (look(bad).attempt, look(bad).state) == (1, state), 60, "it has ended")
    step = look(good).progress["step"]
    wait_until(lambda: look(good).progress["step"] > step, 60, "the other goes on")
    drain.stop()
    thread.join(60)
    assert (look(good).losses, link._process) == (0, runner)
