"""Cancel, pause, drain and make way: heeded at once, lost in no gap."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from core.config import Settings
from core.db.engine import Database
from core.db.models import Job, Worker
from core.jobs import service as jobs
from tests.support import jobs as make
from tests.support.server import wait_until
from tests.worker.drain.scene import (
    Play,
    attend_until_it_ends,
    device_of,
    in_background,
    reasons,
    running,
)
from worker import inputs
from worker.drain import Drain
from worker.link import Link
from worker.turn import Turn


def test_a_cancel_stops_it_and_the_runner_takes_the_next(
    drain: Drain, play: Play, look: Callable[[Job], Job], database: Database
) -> None:
    long, next_one = play("long"), play("draw")
    thread = running(drain, look, long)
    with database.write() as session:
        jobs.cancel(session, long.owner, long.id)
    for _ in range(3):  # watch, beat and progress may all bring it
        drain.heed({long.id: "cancel"})
    thread.join(60)
    assert look(long).state == "cancelled"
    assert (look(next_one).state, look(next_one).attempt) == ("succeeded", 1)


def test_a_pause_takes_it_out_of_the_queue_until_it_is_resumed(
    drain: Drain, play: Play, look: Callable[[Job], Job], database: Database
) -> None:
    long, next_one = play("long"), play("draw")
    thread = running(drain, look, long)
    with database.write() as session:
        jobs.pause(session, long.owner, long.id)
    thread.join(60)  # its next report brings the wish
    assert (look(long).state, look(long).attempt, look(long).losses) == ("paused", 1, 0)
    assert (look(next_one).state, look(next_one).attempt) == ("succeeded", 1)
    with database.write() as session:
        jobs.resume(session, long.owner, long.id)
    thread = in_background(drain)
    wait_until(lambda: look(long).attempt == 2, 60, "it goes on")
    drain.stop()
    thread.join(60)
    assert look(long).state == "queued"


def test_a_cancel_counts_although_a_pause_came_first(
    drain: Drain, play: Play, look: Callable[[Job], Job], database: Database
) -> None:
    long = play("long")
    thread = running(drain, look, long)
    with database.write() as session:
        jobs.pause(session, long.owner, long.id)
        jobs.cancel(session, long.owner, long.id)
    thread.join(60)
    assert look(long).state == "cancelled"


def test_a_cancel_between_claim_and_begin_is_not_lost(
    drain: Drain,
    play: Play,
    look: Callable[[Job], Job],
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = play("long")
    lay_out = inputs.lay_out

    def cancelled_meanwhile(*arguments: Any) -> Any:
        with database.write() as session:
            jobs.cancel(session, job.owner, job.id)
        drain.heed({job.id: "cancel"})
        return lay_out(*arguments)

    monkeypatch.setattr(inputs, "lay_out", cancelled_meanwhile)
    drain.until_empty()
    assert look(job).state == "cancelled"
    assert look(job).progress["step"] < 10


def test_a_signal_between_claim_and_begin_is_not_lost(
    drain: Drain, play: Play, look: Callable[[Job], Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = play("long")
    lay_out = inputs.lay_out

    def signalled_meanwhile(*arguments: Any) -> Any:
        drain.stop()
        return lay_out(*arguments)

    monkeypatch.setattr(inputs, "lay_out", signalled_meanwhile)
    drain.until_empty()
    assert look(job).state == "queued"


def test_a_cancel_that_is_not_heeded_ends_the_runner_after_the_grace_time(
    drain: Drain,
    play: Play,
    look: Callable[[Job], Job],
    link: Link,
    worker: Worker,
    database: Database,
    settings: Settings,
) -> None:
    drain.settings = settings.model_copy(update={"grace_seconds": 0.5})
    job = play("hang")
    thread = running(drain, look, job)
    drain.attend()
    with database.write() as session:
        jobs.cancel(session, job.owner, job.id)
    drain.heed({job.id: "cancel"})
    drain.attend()
    thread.join(0.3)
    assert thread.is_alive()  # it may yet come to its next step
    attend_until_it_ends(drain, thread)
    assert (look(job).state, look(job).losses) == ("cancelled", 0)
    assert device_of(database, worker).lost == []
    assert link.ready.wait(30)


def test_the_grace_time_of_a_cancel_begins_when_the_runner_is_told(
    drain: Drain,
    play: Play,
    look: Callable[[Job], Job],
    link: Link,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And not while a large base or a slow store lets it wait for its inputs."""
    drain.settings = settings.model_copy(update={"grace_seconds": 0.5})
    job, runner, lay_out = play("long"), link._process, inputs.lay_out

    def cancelled_long_before(*arguments: Any) -> Any:
        drain.heed({job.id: "cancel"})
        time.sleep(0.6)
        return lay_out(*arguments)

    def attended_first(turn: Turn) -> None:
        drain.attend()
        turn.stop(save=False)
        drain.attend()

    monkeypatch.setattr(inputs, "lay_out", cancelled_long_before)
    monkeypatch.setattr(Turn, "_stop_if_asked_to", attended_first)
    drain.until_empty()
    assert look(job).state == "cancelled"
    assert link._process is runner


def test_a_cancel_after_a_pause_has_a_grace_time_of_its_own(
    drain: Drain, play: Play, look: Callable[[Job], Job], link: Link, settings: Settings
) -> None:
    drain.settings = settings.model_copy(update={"grace_seconds": 1.5})
    job = play("hang")
    thread = running(drain, look, job)
    drain.heed({job.id: "pause"})
    time.sleep(1.6)
    drain.heed({job.id: "cancel"})
    drain.attend()
    assert link.ready.is_set()
    attend_until_it_ends(drain, thread)


def test_a_training_makes_way_for_a_picture_and_goes_on_afterwards(
    drain: Drain,
    look: Callable[[Job], Job],
    training: Job,
    database: Database,
    settings: Settings,
) -> None:
    thread = running(drain, look, training)
    drain.make_way()
    assert reasons(database, training) == []
    picture = make.submit(database, settings, spec=make.SPEC | {"prompt": "draw"}, priority=1)
    drain.make_way()
    wait_until(lambda: look(training).attempt == 2, 60, "it goes on")
    assert look(picture).state == "succeeded"
    assert reasons(database, training) == ["preempted"]
    assert (look(training).pauses, look(training).losses) == (1, 0)
    assert look(training).checkpoints[0]["step"] > 0
    drain.stop()
    thread.join(60)


def test_a_call_to_make_way_between_claim_and_begin_is_not_lost(
    drain: Drain,
    look: Callable[[Job], Job],
    training: Job,
    database: Database,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lay_out, pictures = inputs.lay_out, iter(["draw"])

    def called_meanwhile(*arguments: Any) -> Any:
        for prompt in pictures:
            make.submit(database, settings, spec=make.SPEC | {"prompt": prompt}, priority=1)
            drain.make_way()
        return lay_out(*arguments)

    monkeypatch.setattr(inputs, "lay_out", called_meanwhile)
    thread = in_background(drain)
    wait_until(lambda: look(training).attempt == 2, 60, "it made way")
    assert reasons(database, training) == ["preempted"]
    drain.stop()
    thread.join(60)


def test_a_drain_tells_what_it_runs_and_when_it_has_ended(
    drain: Drain, training: Job, look: Callable[[Job], Job]
) -> None:
    thread = running(drain, look, training)
    assert drain.jobs == [training.id]
    drain.wait_until_idle(0.1)
    assert drain.is_busy
    drain.stop()
    drain.wait_until_idle(10)
    assert not drain.is_busy
    assert drain.jobs == []
    thread.join()


def test_who_is_told_too_late_to_end_leaves_the_next_job_alone(
    drain: Drain, link: Link, play: Play, look: Callable[[Job], Job]
) -> None:
    """A wish for the job before was read, and that job ended, before it could be passed on."""
    first = play("long")
    thread = running(drain, look, first)
    (turn,) = drain._turns
    drain.heed({first.id: "cancel"})
    wait_until(lambda: look(first).finished_at is not None, 60, "it has ended")
    thread.join()
    second = play("long")
    thread = running(drain, look, second)
    runner = link._process
    turn.stop(save=False)
    turn.drop()
    step = look(second).progress["step"]
    wait_until(lambda: look(second).progress["step"] > step, 60, "it goes on")
    assert link._process is runner
    drain.stop()
    thread.join(60)


def test_a_call_that_meets_the_end_of_a_drain_is_not_lost(
    drain: Drain, play: Play, look: Callable[[Job], Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It finds another thread at work, which has seen an empty queue already."""
    jobs: list[Job] = []
    real = drain._claim

    def claim_and_be_called() -> list[Job]:
        taken = real()
        if not taken and not jobs:
            jobs.append(play("draw"))
            drain.until_empty()  # returns at once
            assert look(jobs[0]).state == "queued"
        return taken

    monkeypatch.setattr(drain, "_claim", claim_and_be_called)
    drain.until_empty()
    assert look(jobs[0]).state == "succeeded"
