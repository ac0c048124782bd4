"""Death is a free lock, or a counter that stands still for a lease; nothing else is."""

import pytest

from core.config import Settings
from core.db.engine import Database
from core.db.models import Job, Worker
from core.files.lock import LockFile
from core.jobs import reaper as reaper_module
from core.jobs import service as jobs
from core.jobs.reaper import Reaper
from core.workers import service as workers
from core.workers.host import lock_path
from core.workers.service import Condition
from tests.support.jobs import BASES, CHIP, beat, history, register, reread, submit, take


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The reaper's own clock, to be moved by hand."""
    clock = Clock()
    monkeypatch.setattr(reaper_module, "boot_seconds", clock)
    return clock


@pytest.fixture
def reaper(any_database: Database, settings: Settings) -> Reaper:
    return Reaper(any_database, settings)


@pytest.fixture
def held(any_database: Database, settings: Settings) -> tuple[Worker, Job, LockFile]:
    """A worker that holds its lock, and the job it runs."""
    worker = register(any_database, settings)
    lock = LockFile.take(lock_path(settings.run_path, worker.id))
    assert lock is not None
    submit(any_database, settings)
    return worker, take(any_database, worker), lock


def known_workers(database: Database) -> list[str]:
    with database.read() as session:
        return [worker.id for worker in workers.live_workers(session)]


def test_a_free_lock_means_dead_at_once(
    reaper: Reaper, held: tuple[Worker, Job, LockFile], any_database: Database
) -> None:
    _, job, lock = held
    reaper.look()
    assert reread(any_database, job).state == "running"
    lock.release()
    reaper.look()
    assert reread(any_database, job).state == "queued"
    assert reread(any_database, job).losses == 0
    assert known_workers(any_database) == []
    assert not lock.path.exists()


def test_a_lock_of_another_host_is_not_looked_at(
    reaper: Reaper, held: tuple[Worker, Job, LockFile], any_database: Database, clock: Clock
) -> None:
    worker, job, lock = held
    with any_database.write() as session:
        session.get_one(Worker, worker.id).host = "this-name/another-home"
    lock.release()
    reaper.look()
    assert reread(any_database, job).state == "running"


def test_a_counter_that_stands_still_for_a_lease(
    reaper: Reaper,
    held: tuple[Worker, Job, LockFile],
    any_database: Database,
    settings: Settings,
    clock: Clock,
) -> None:
    _, job, _ = held
    reaper.look()
    clock.seconds += settings.lease_seconds - 1
    reaper.look()
    assert reread(any_database, job).state == "running"
    clock.seconds += 1
    reaper.look()
    assert history(any_database, job) == ["queued", "running", "queued"]
    assert known_workers(any_database) == []


def test_a_beat_in_time_keeps_the_lease(
    reaper: Reaper,
    held: tuple[Worker, Job, LockFile],
    any_database: Database,
    settings: Settings,
    clock: Clock,
) -> None:
    worker, job, _ = held
    for _ in range(5):
        reaper.look()
        clock.seconds += settings.lease_seconds - 1
        assert beat(any_database, worker).known
    reaper.look()
    assert reread(any_database, job).state == "running"


def test_a_worker_that_beat_since_the_look_is_not_buried(
    any_database: Database, settings: Settings
) -> None:
    worker = register(any_database, settings)
    beat(any_database, worker)
    with any_database.write() as session:
        assert not workers.forget(session, worker.id, beat=worker.beat)
    assert known_workers(any_database) == [worker.id]


def test_a_job_whose_worker_is_unknown_is_given_back_after_a_lease(
    reaper: Reaper,
    held: tuple[Worker, Job, LockFile],
    any_database: Database,
    settings: Settings,
    clock: Clock,
) -> None:
    worker, job, _ = held
    with any_database.write() as session:
        workers.sign_off(session, worker.id)
    reaper.look()
    clock.seconds += settings.lease_seconds
    reaper.look()
    assert reread(any_database, job).state == "queued"


def test_a_beat_brings_back_what_was_asked(any_database: Database, settings: Settings) -> None:
    worker = register(any_database, settings)
    submit(any_database, settings)
    job = take(any_database, worker)
    answer = beat(any_database, worker)
    assert (answer.known, answer.wishes) == (True, {})
    with any_database.write() as session:
        jobs.cancel(session, job.owner, job.id)
    assert beat(any_database, worker).wishes == {job.id: "cancel"}
    with any_database.write() as session:
        assert workers.wishes(session, worker.id) == {job.id: "cancel"}
        workers.sign_off(session, worker.id)
    assert not beat(any_database, worker).known


def test_a_beat_tells_what_the_worker_has_and_whether_it_is_ready(
    any_database: Database, settings: Settings
) -> None:
    worker = register(any_database, settings)
    with any_database.write() as session:
        workers.beat(session, worker.id, Condition(CHIP, ["ssd-1b"]))
        assert workers.bases_on_workers(session) == {"ssd-1b"}
        assert len(workers.open_workers(session)) == 1
        workers.beat(session, worker.id, Condition(None, ["ssd-1b"]))
        assert workers.bases_on_workers(session) == {"ssd-1b"}  # its runner begins again
        assert workers.open_workers(session) == []


def test_a_job_that_its_worker_does_not_run_is_given_back_although_that_lives(
    reaper: Reaper,
    held: tuple[Worker, Job, LockFile],
    any_database: Database,
    settings: Settings,
    clock: Clock,
) -> None:
    """Its claim was committed, and the answer got lost."""
    worker, job, _ = held
    for _ in range(2):
        reaper.look()
        clock.seconds += settings.lease_seconds
        with any_database.write() as session:
            answer = workers.beat(session, worker.id, Condition(CHIP, BASES))
        assert (answer.known, answer.wishes) == (True, {})
    reaper.look()
    assert reread(any_database, job).state == "queued"
    assert known_workers(any_database) == [worker.id]
