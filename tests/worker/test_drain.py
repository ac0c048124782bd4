"""A worker's loop, with a real database, a real store and a real process for a runner."""

import errno
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.artifacts import service as artifacts
from core.artifacts.store import Store
from core.config import Settings
from core.db.engine import Database
from core.db.models import Device, Job, Rate, Worker, now
from core.errors import NotFound, Unavailable
from core.files.lock import LockFile
from core.jobs import logs
from core.jobs import service as jobs
from core.jobs.attempt import Attempt
from core.jobs.transition import events_after
from core.workers import devices
from tests.core.jobs.test_service import fine_tune, make_dataset
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


@pytest.fixture
def training(database: Database, settings: Settings) -> Job:
    """One that takes steps until it is stopped, and is saved then."""
    Store.of(settings).put_bytes("0", b"a picture")
    spec = fine_tune(make_dataset(database, 1), instance_prompt="long")
    return make.submit(database, settings, kind="fine_tune", spec=spec)


def reasons(database: Database, job: Job) -> list[str]:
    """Why it changed its state, where that was told."""
    with database.read() as session:
        states = [e.data for e in events_after(session, job.id, 0, 500) if e.type == "state"]
    return [data["reason"] for data in states if "reason" in data]


def lines_of(database: Database, job: Job) -> list[str]:
    with database.read() as session:
        return logs.tail(session, job.id, 100)


def device_of(database: Database, worker: Worker) -> Device:
    with database.read() as session:
        return session.get_one(Device, worker.device_id)


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
        raise ValueError("a secret of ours")

    with monkeypatch.context() as patch:
        patch.setattr(inputs, "lay_out", break_down)
        drain.until_empty()
    error = look(bad).error
    assert error is not None
    assert error["code"] == "internal_error"
    assert "a secret" not in error["detail"]
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


def attend_until_it_ends(drain: Drain, thread: threading.Thread) -> None:
    deadline = time.monotonic() + 10
    while thread.is_alive():
        assert time.monotonic() < deadline, "it was not ended"
        drain.attend()
        thread.join(0.02)


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


def test_a_runner_that_goes_on_is_left_alone(
    drain: Drain, play: Play, look: Callable[[Job], Job], settings: Settings
) -> None:
    drain.settings = settings.model_copy(update={"watchdog_seconds": 0.5})
    job = play("long")
    thread = running(drain, look, job)
    for _ in range(20):
        time.sleep(0.05)
        drain.attend()
    assert (look(job).state, look(job).attempt) == ("running", 1)
    drain.stop()
    thread.join(10)


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
    wait_until(lambda: look(training).attempt == 2, 10, "it goes on")
    assert look(picture).state == "succeeded"
    assert reasons(database, training) == ["preempted"]
    assert (look(training).pauses, look(training).losses) == (1, 0)
    assert look(training).checkpoints[0]["step"] > 0
    drain.stop()
    thread.join(10)


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
    wait_until(lambda: look(training).attempt == 2, 10, "it made way")
    assert reasons(database, training) == ["preempted"]
    drain.stop()
    thread.join(10)


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


def test_a_database_of_another_version_is_not_claimed_from(
    drain: Drain, play: Play, look: Callable[[Job], Job], caplog: pytest.LogCaptureFixture
) -> None:
    job = play("draw")
    drain._revision = "0004"
    drain.until_empty()
    assert (look(job).state, look(job).attempt) == ("queued", 0)
    assert "this process of revision 0004: end it" in caplog.text


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
    assert device_of(database, worker).lost == [job.id]


def test_a_drain_tells_what_it_runs_and_when_it_has_ended(
    drain: Drain, training: Job, look: Callable[[Job], Job]
) -> None:
    thread = running(drain, look, training)
    assert drain.job == training.id
    drain.wait_until_idle(0.1)
    assert drain.is_busy
    drain.stop()
    drain.wait_until_idle(10)
    assert not drain.is_busy
    assert drain.job is None
    thread.join()


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
    assert (device.state, device.lost) == ("quarantined", [job.id for job in jobs])
