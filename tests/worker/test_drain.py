"""A worker's loop, with a real database, a real store and a real process for a runner."""

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.artifacts import service as artifacts
from core.artifacts.store import Store
from core.config import Settings
from core.db.engine import Database
from core.db.models import Job, Rate, Worker
from core.errors import NotFound, Unavailable
from core.files.lock import LockFile
from core.jobs import service as jobs
from core.jobs.attempt import Attempt
from core.jobs.transition import events_after
from tests.support import jobs as make
from tests.support.server import wait_until
from worker import inputs
from worker.drain import Drain
from worker.link import Link
from worker.record import Record
from worker.tail import Tail

SCRIPTED = (sys.executable, "-m", "tests.support.scripted_runner")
Play = Callable[[str], Job]


@pytest.fixture
def link(settings: Settings) -> Iterator[Link]:
    lock = LockFile.take(settings.run_path / "worker.lock")
    assert lock is not None
    link = Link(lock, on_change=lambda: None, command=SCRIPTED)
    link.start()
    assert link.ready.wait(30)
    yield link
    link.close()
    lock.release()


@pytest.fixture
def worker(database: Database, settings: Settings) -> Worker:
    return make.register(database, settings)


@pytest.fixture
def drain(worker: Worker, link: Link, database: Database, settings: Settings) -> Drain:
    return Drain(worker, link, database, Store.of(settings), settings)


@pytest.fixture
def play(database: Database, settings: Settings) -> Play:
    """Submits a job that does what its prompt says."""

    def submit(script: str) -> Job:
        return make.submit(database, settings, spec=make.SPEC | {"prompt": script})

    return submit


@pytest.fixture
def look(database: Database) -> Callable[[Job], Job]:
    return lambda job: make.reread(database, job)


def in_background(drain: Drain) -> threading.Thread:
    thread = threading.Thread(target=drain.until_empty)
    thread.start()
    return thread


def running(drain: Drain, look: Callable[[Job], Job], job: Job) -> threading.Thread:
    """The drain's thread, once the job has taken a step."""
    thread = in_background(drain)
    wait_until(lambda: look(job).progress["step"] > 0, 10, "it runs")
    return thread


def test_it_runs_what_there_is_and_comes_back(
    drain: Drain, play: Play, look: Callable[[Job], Job], database: Database, settings: Settings
) -> None:
    played = [play("draw"), play("draw")]
    drain.until_empty()
    for job in map(look, played):
        assert (job.state, job.attempt, job.progress["step"]) == ("succeeded", 1, 3)
        assert job.result is not None
        with database.read() as session:
            (image,) = artifacts.list_made_by(session, job.id)[0]
        assert job.result == {"images": [image.id]}
        assert Store.of(settings).read(image.files[0]["store_key"]) == b"a picture"
    assert not list(settings.scratch_path.glob("*/*"))


def test_a_failure_is_the_jobs_and_the_next_one_runs(
    drain: Drain, play: Play, look: Callable[[Job], Job]
) -> None:
    bad, good = play("fail"), play("draw")
    drain.until_empty()
    assert look(bad).error == {"code": "odd", "detail": "It was told to."}
    assert look(good).state == "succeeded"


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


def test_what_a_job_took_is_remembered_for_dry_runs(
    drain: Drain, play: Play, database: Database
) -> None:
    play("draw")
    drain.until_empty()
    with database.read() as session:
        (rate,) = session.query(Rate)
    assert (rate.chip, rate.kind, rate.base) == ("cpu", "generate", "nano-ssd-1b")
    assert 0 < rate.seconds_per_step < 5


def test_a_runner_that_its_worker_killed_counts_against_nobody(
    drain: Drain, play: Play, look: Callable[[Job], Job], link: Link
) -> None:
    job = play("long")
    thread = running(drain, look, job)
    drain._stopping.set()
    link.kill()
    thread.join(10)
    assert (look(job).state, look(job).losses) == ("queued", 0)


def test_a_cancel_stops_it_and_the_runner_takes_the_next(
    drain: Drain, play: Play, look: Callable[[Job], Job], database: Database
) -> None:
    long, next_one = play("long"), play("draw")
    thread = running(drain, look, long)
    with database.write() as session:
        jobs.cancel(session, long.owner, long.id)
    for _ in range(3):  # watch, beat and progress may all bring it
        drain.heed({long.id: "cancel"})
    thread.join(10)
    assert look(long).state == "cancelled"
    assert (look(next_one).state, look(next_one).attempt) == ("succeeded", 1)


def test_a_pause_takes_it_out_of_the_queue_until_it_is_resumed(
    drain: Drain, play: Play, look: Callable[[Job], Job], database: Database
) -> None:
    long, next_one = play("long"), play("draw")
    thread = running(drain, look, long)
    with database.write() as session:
        jobs.pause(session, long.owner, long.id)
    thread.join(10)  # its next report brings the wish
    assert (look(long).state, look(long).attempt, look(long).losses) == ("paused", 1, 0)
    assert (look(next_one).state, look(next_one).attempt) == ("succeeded", 1)
    with database.write() as session:
        jobs.resume(session, long.owner, long.id)
    thread = in_background(drain)
    wait_until(lambda: look(long).attempt == 2, 10, "it goes on")
    drain.stop()
    thread.join(10)
    assert look(long).state == "queued"


def test_a_cancel_counts_although_a_pause_came_first(
    drain: Drain, play: Play, look: Callable[[Job], Job], database: Database
) -> None:
    long = play("long")
    thread = running(drain, look, long)
    with database.write() as session:
        jobs.pause(session, long.owner, long.id)
        jobs.cancel(session, long.owner, long.id)
    thread.join(10)
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


def test_a_store_that_is_away_costs_no_attempt(
    drain: Drain, play: Play, look: Callable[[Job], Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = play("draw")
    lay_out, refusals = inputs.lay_out, iter(range(2))

    def away_at_first(*arguments: Any) -> Any:
        if next(refusals, None) is not None:
            raise Unavailable("The store does not answer.")
        return lay_out(*arguments)

    monkeypatch.setattr(inputs, "lay_out", away_at_first)
    monkeypatch.setattr("worker.drain._AWAY_SECONDS", 0.01)
    drain.until_empty()
    assert (look(job).state, look(job).attempt) == ("succeeded", 1)


def test_our_own_errors_fail_the_job_and_not_the_worker(
    drain: Drain,
    play: Play,
    look: Callable[[Job], Job],
    link: Link,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bad = play("draw")

    def break_down(*_: Any) -> Any:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(inputs, "lay_out", break_down)
        drain.until_empty()
    error = look(bad).error
    assert error is not None
    assert error["code"] == "internal_error"
    assert "disk full" not in error["detail"]
    assert link.ready.wait(30)
    good = play("draw")
    drain.until_empty()
    assert look(good).state == "succeeded"


def test_an_attempt_that_lost_its_lease_ends_and_writes_nothing(
    drain: Drain, play: Play, look: Callable[[Job], Job], database: Database, settings: Settings
) -> None:
    job = play("long")
    thread = running(drain, look, job)
    with database.write() as session:
        Attempt(job.id, 1).give_back(session, "worker_lost")
    other = make.register(database, settings)
    taken = make.take(database, other)
    thread.join(10)
    assert not thread.is_alive()
    again = look(job)
    assert (taken.id, again.state, again.attempt, again.worker_id) == (
        job.id,
        "running",
        2,
        other.id,
    )


def test_an_attempt_that_wakes_up_late_leaves_the_files_of_the_next(
    play: Play,
    database: Database,
    settings: Settings,
    worker: Worker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    play("draw")
    store = Store.of(settings)
    path = tmp_path / "0.png"
    path.write_bytes(b"a picture")

    def record_of(job: Job) -> Record:
        return Record(job, database, store, settings, worker=worker, chip=None, tail=Tail())

    def put_and_lose() -> str:
        job = make.take(database, worker)
        (file,) = record_of(job).put(path)
        with database.write() as session:
            Attempt(job.id, job.attempt).give_back(session, "worker_lost")
        return file.store_key

    first = put_and_lose()
    second = make.take(database, worker)
    third: list[str] = []
    delete_prefix = Store.delete_prefix

    def frozen_before_it_deletes(store: Store, prefix: str, **options: Any) -> None:
        with database.write() as session:
            Attempt(second.id, second.attempt).give_back(session, "worker_lost")
        third.append(put_and_lose())
        delete_prefix(store, prefix, **options)

    monkeypatch.setattr(Store, "delete_prefix", frozen_before_it_deletes)
    record_of(second).begin()
    assert store.read(third[0]) == b"a picture"
    with pytest.raises(NotFound):
        store.read(first)


def test_a_runner_that_never_gets_ready_is_tried_again_and_nothing_is_claimed(
    worker: Worker, play: Play, look: Callable[[Job], Job], database: Database, settings: Settings
) -> None:
    lock = LockFile.take(settings.run_path / "another.lock")
    assert lock is not None
    changes: list[int] = []
    link = Link(lock, on_change=lambda: changes.append(1), command=(*SCRIPTED, "--never-ready"))
    link.start()
    job = play("draw")
    wait_until(lambda: len(changes) > 1, 20, "it was started twice")
    Drain(worker, link, database, Store.of(settings), settings).until_empty()
    link.close()
    lock.release()
    assert (look(job).state, look(job).attempt) == ("queued", 0)
