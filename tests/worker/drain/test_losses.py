"""Runners that die, hang and do not begin, and who is blamed."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from core.artifacts.store import Store
from core.config import Settings
from core.db.engine import Database
from core.db.models import Job, Worker
from core.files.lock import LockFile
from core.jobs import service as jobs
from core.jobs.transition import events_after
from core.workers import devices
from tests.support import jobs as make
from tests.support.server import wait_until
from tests.worker.drain.scene import (
    SCRIPTED,
    Play,
    attend_until_it_ends,
    device_of,
    in_background,
    lines_of,
    reasons,
    running,
)
from worker import inputs
from worker.drain import Drain
from worker.link import Link


def test_a_job_that_kills_its_runner_is_given_up_after_three_losses(
    drain: Drain, play: Play, look: Callable[[Job], Job], link: Link, settings: Settings
) -> None:
    drain.settings = settings.model_copy(update={"retry_seconds": [0.0]})
    job = play("die")
    for losses in (1, 2, 3):
        drain.until_empty()
        assert look(job).losses == min(losses, 2)
        assert link.ready.wait(30)
    ended = look(job)
    assert (ended.state, ended.attempt) == ("failed", 3)
    assert ended.error is not None
    assert ended.error["code"] == "worker_lost"


def test_a_job_that_is_too_much_goes_down_the_ladder(
    drain: Drain, play: Play, look: Callable[[Job], Job], database: Database, link: Link
) -> None:
    job = play("too much")
    for _ in range(3):  # each time, the runner ends with what it left in memory
        assert link.ready.wait(30)
        drain.until_empty()
    ended = look(job)
    assert (ended.state, ended.attempt, ended.rung, ended.losses) == ("succeeded", 3, 2, 0)
    with database.read() as session:
        states = [e.data for e in events_after(session, job.id, 0, 50) if e.type == "state"]
    assert [data.get("reason") for data in states].count("out_of_memory") == 2


def test_a_runner_that_its_worker_killed_counts_against_nobody(
    drain: Drain, play: Play, look: Callable[[Job], Job], link: Link
) -> None:
    job = play("long")
    thread = running(drain, look, job)
    drain._stopping.set()
    link.kill()
    thread.join(60)
    assert (look(job).state, look(job).losses) == ("queued", 0)


def test_a_runner_that_never_gets_ready_is_tried_again_and_nothing_is_claimed(
    worker: Worker, play: Play, look: Callable[[Job], Job], database: Database, settings: Settings
) -> None:
    lock = LockFile.take(settings.run_path / "another.lock")
    assert lock is not None
    changes: list[int] = []
    link = Link(lock, command=(*SCRIPTED, "--never-ready"))
    link.on_change = lambda: changes.append(1)
    link.start()
    job = play("draw")
    wait_until(lambda: len(changes) > 1, 20, "it was started twice")
    Drain(worker, link, database, Store.of(settings), settings).until_empty()
    link.close()
    lock.release()
    assert (look(job).state, look(job).attempt) == ("queued", 0)


def test_a_runner_that_hangs_is_ended_and_counts_as_a_loss(
    drain: Drain, play: Play, look: Callable[[Job], Job], link: Link, settings: Settings
) -> None:
    changes = {"watchdog_seconds": 0.1, "retry_seconds": [0.0]}
    drain.settings = settings.model_copy(update=changes)
    job = play("hang")
    for losses in (1, 2, 3):
        thread = running(drain, look, job)
        attend_until_it_ends(drain, thread)
        assert look(job).losses == min(losses, 2)
        assert link.ready.wait(30)
    ended = look(job)
    assert (ended.state, ended.attempt) == ("failed", 3)
    assert ended.error is not None
    assert "hung 3 times" in ended.error["detail"]


def test_a_runner_that_does_not_leave_a_job_that_is_over_is_ended(
    drain: Drain,
    play: Play,
    look: Callable[[Job], Job],
    link: Link,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drain.settings = settings.model_copy(update={"grace_seconds": 0.2})

    def put(*_: Any) -> None:
        time.sleep(2)  # until the runner hangs, and cannot hear of it
        raise ValueError("a secret of ours")

    monkeypatch.setattr(Store, "put_file", put)
    job, runner = play("draw and hang"), link._process
    thread = in_background(drain)
    attend_until_it_ends(drain, thread)
    assert (look(job).state, look(job).losses) == ("failed", 0)
    wait_until(lambda: link._process is not runner, 60, "there is another")


def test_a_runner_that_goes_on_is_left_alone(
    drain: Drain, play: Play, look: Callable[[Job], Job], settings: Settings
) -> None:
    drain.settings = settings.model_copy(update={"watchdog_seconds": 2.0})
    job = play("long")
    thread = running(drain, look, job)
    for _ in range(60):
        time.sleep(0.05)
        drain.attend()
    assert (look(job).state, look(job).attempt) == ("running", 1)
    drain.stop()
    thread.join(60)


def test_a_slow_store_makes_no_runner_hang(
    drain: Drain,
    play: Play,
    look: Callable[[Job], Job],
    link: Link,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drain.settings = settings.model_copy(update={"watchdog_seconds": 0.1})
    job, runner = play("draw"), link._process
    put_file, lay_out = Store.put_file, inputs.lay_out

    def outlast_the_watchdog() -> None:
        time.sleep(1.0)
        drain.attend()

    def put_slowly(*arguments: Any) -> None:
        outlast_the_watchdog()
        put_file(*arguments)

    def lay_out_slowly(*arguments: Any) -> Any:
        outlast_the_watchdog()
        return lay_out(*arguments)

    monkeypatch.setattr(Store, "put_file", put_slowly)
    monkeypatch.setattr(inputs, "lay_out", lay_out_slowly)
    drain.until_empty()
    assert (look(job).state, look(job).attempt) == ("succeeded", 1)
    assert link._process is runner


def test_a_loss_after_a_checkpoint_is_the_first_again(
    drain: Drain, play: Play, look: Callable[[Job], Job], link: Link, settings: Settings
) -> None:
    drain.settings = settings.model_copy(update={"retry_seconds": [0.0]})
    job = play("die late")
    for attempt in range(1, settings.max_losses + 2):
        drain.until_empty()
        lost = look(job)
        assert (lost.state, lost.attempt, lost.losses) == ("queued", attempt, 1)
        assert lost.checkpoints[0]["step"] == attempt
        assert link.ready.wait(30)


def test_a_device_that_loses_two_jobs_claims_no_third(
    drain: Drain,
    play: Play,
    look: Callable[[Job], Job],
    link: Link,
    worker: Worker,
    database: Database,
) -> None:
    first, second, third = play("die"), play("die"), play("draw")
    for _ in range(3):
        drain.until_empty()
        assert link.ready.wait(30)
    assert device_of(database, worker).state == "quarantined"
    assert (look(first).state, look(first).losses) == ("queued", 1)
    assert (look(second).state, look(second).losses) == ("queued", 0)  # the device is to blame
    assert reasons(database, second) == ["device_quarantined"]
    assert (look(third).state, look(third).attempt) == ("queued", 0)
    assert not drain.has_work()
    with database.write() as session:
        devices.release(session, worker.id)
        for job in (first, second):
            jobs.cancel(session, job.owner, job.id)
    drain.until_empty()
    assert look(third).state == "succeeded"


def test_a_job_lost_on_a_drained_device_is_a_loss_like_another(
    drain: Drain,
    play: Play,
    look: Callable[[Job], Job],
    worker: Worker,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job, lay_out = play("die"), inputs.lay_out

    def drained_meanwhile(*arguments: Any) -> Any:
        with database.write() as session:
            devices.drain(session, worker.id)
        return lay_out(*arguments)

    monkeypatch.setattr(inputs, "lay_out", drained_meanwhile)
    drain.until_empty()
    assert (look(job).losses, reasons(database, job)) == (1, ["runner_lost"])
    assert device_of(database, worker).state == "drained"


def test_a_lost_job_shuns_its_device_where_there_is_another(
    drain: Drain,
    play: Play,
    look: Callable[[Job], Job],
    worker: Worker,
    database: Database,
    settings: Settings,
) -> None:
    make.register(database, settings, device="cpu:1")
    job = play("die")
    drain.until_empty()
    assert look(job).shuns == worker.device_id


def test_what_a_runner_wrote_before_it_crashed_is_kept_with_the_job(
    drain: Drain,
    play: Play,
    look: Callable[[Job], Job],
    link: Link,
    database: Database,
    settings: Settings,
) -> None:
    drain.settings = settings.model_copy(update={"retry_seconds": [0.0]})
    job = play("say")
    for attempt in (1, 2):
        drain.until_empty()
        assert lines_of(database, job) == attempt * ["reading out", "key=***"]
        assert link.ready.wait(30)
    with database.write() as session:
        jobs.cancel(session, job.owner, job.id)
    quiet = play("draw")
    drain.until_empty()
    assert look(quiet).state == "succeeded"
    assert lines_of(database, quiet) == []


def test_a_runner_that_dies_before_it_has_begun_counts_against_the_device_alone(
    drain: Drain,
    play: Play,
    look: Callable[[Job], Job],
    database: Database,
    worker: Worker,
    link: Link,
) -> None:
    jobs = [play("never begun") for _ in range(2)]
    for job in jobs:
        assert link.ready.wait(30)
        drain.until_empty()
        assert (look(job).state, look(job).losses) == ("queued", 0)
        assert look(job).not_before is not None
    device = device_of(database, worker)
    assert (device.state, device.lost) == ("quarantined", [[job.id] for job in jobs])


def test_runners_that_the_worker_ends_itself_are_no_early_deaths(link: Link) -> None:
    for _ in range(2):
        link.kill()
        process = link._process
        wait_until(lambda: link._process is not process, 60, "there is another")  # noqa: B023  # called at once
        link.kill()  # before it was ready, most likely
    assert link.ready.wait(30)
    assert link.early_deaths == 0


def test_a_worker_that_was_away_gives_back_what_ran_and_claims_no_more_until_a_beat(
    drain: Drain, play: Play, look: Callable[[Job], Job], link: Link, settings: Settings
) -> None:
    drain.settings = settings.model_copy(update={"retry_seconds": [0.0]})
    long, next_one = play("long"), play("draw")
    thread = running(drain, look, long)
    link.go_on(0.0)
    thread.join(60)
    stopped = look(long)
    assert (stopped.state, stopped.attempt, stopped.losses) == ("queued", 1, 0)
    assert stopped.pauses == 1  # it was not in vain
    drain.until_empty()
    assert (look(long).attempt, look(next_one).attempt) == (1, 0)
    link.go_on(60.0)
    thread = in_background(drain)
    wait_until(lambda: look(long).attempt == 2, 60, "it goes on")
    drain.stop()
    thread.join(60)


def test_what_a_worker_gave_back_since_it_was_away_rests_before_it_is_taken_again(
    drain: Drain,
    play: Play,
    look: Callable[[Job], Job],
    link: Link,
    database: Database,
) -> None:
    job = play("long")
    thread = running(drain, look, job)
    link.go_on(0.0)
    thread.join(60)
    assert reasons(database, job) == ["worker_silent"]
    assert look(job).not_before is not None


def test_who_cannot_beat_ends_a_runner_that_is_at_work_and_no_other(
    drain: Drain, play: Play, look: Callable[[Job], Job], link: Link
) -> None:
    runner = link._process
    link.fence()
    job = play("long")
    thread = running(drain, look, job)
    assert link._process is runner
    drain._stopping.set()
    link.fence()
    thread.join(60)
    assert (look(job).state, look(job).losses) == ("queued", 0)
    wait_until(lambda: link._process is not runner, 60, "there is another")
