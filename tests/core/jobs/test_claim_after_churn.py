"""Claims look from a lane's floor on: whatever comes to stand below it is claimed all the same."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from core.config import Settings
from core.db.engine import Database
from core.db.models import Job, Lane, Worker
from core.jobs import claim as claim_module
from core.jobs import lanes
from core.jobs import service as jobs
from core.jobs.admission import parse
from core.jobs.attempt import Attempt
from core.jobs.claim import claim, is_claimable, next_up
from core.jobs.standing import Standing
from tests.support.databases import postgres_database
from tests.support.jobs import BASES, SPEC, history, register, submit, succeed, take

OLD_ID = "job_00000000000000000000000000"


@pytest.fixture
def worker(any_database: Database, settings: Settings) -> Worker:
    return register(any_database, settings)


@pytest.fixture
def at_every_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    """A floor rises with each claim."""
    monkeypatch.setattr(claim_module, "RAISE_SHARE", 1.0)


@pytest.fixture
def clock_that_went_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next job is older than all that were there."""
    monkeypatch.setattr("core.jobs.service.new_id", lambda _prefix: OLD_ID)


def floor_of(database: Database, job: Job) -> str:
    with database.read() as session:
        return session.get_one(Lane, job.lane).floor


def is_next(database: Database, worker: Worker, job: Job) -> bool:
    """As every look tells, and then the claim."""
    with database.read() as session:
        assert is_claimable(session, worker, BASES)
        head = next_up(session, worker, BASES)
        places = Standing().positions(session, [jobs.get(session, job.owner, job.id)])
    assert head is not None
    assert places == {job.id: 1}
    return head.job_id == job.id == take(database, worker).id


@pytest.mark.usefixtures("at_every_claim")
def test_a_floor_rises_to_the_oldest_that_waits(
    any_database: Database, settings: Settings, worker: Worker
) -> None:
    first, second = submit(any_database, settings), submit(any_database, settings)
    assert floor_of(any_database, first) == ""
    take(any_database, worker)
    assert floor_of(any_database, first) == second.id
    take(any_database, worker)
    assert floor_of(any_database, first) == second.id
    assert is_next(any_database, worker, submit(any_database, settings))


@pytest.mark.usefixtures("at_every_claim")
def test_a_job_that_was_given_back_is_the_next(
    any_database: Database, settings: Settings, worker: Worker
) -> None:
    for _ in range(3):
        submit(any_database, settings)
    lost, _ = take(any_database, worker), take(any_database, worker)
    assert floor_of(any_database, lost) > lost.id
    with any_database.write() as session:
        Attempt(lost.id, lost.attempt).give_back(session, "worker_lost")
    assert is_next(any_database, worker, lost)
    assert floor_of(any_database, lost) > lost.id


@pytest.mark.usefixtures("at_every_claim")
def test_a_job_that_was_resumed_is_the_next(
    any_database: Database, settings: Settings, worker: Worker
) -> None:
    paused = submit(any_database, settings)
    with any_database.write() as session:
        jobs.pause(session, paused.owner, paused.id)
    for _ in range(2):
        submit(any_database, settings)
    take(any_database, worker)
    assert floor_of(any_database, paused) > paused.id
    with any_database.write() as session:
        jobs.resume(session, paused.owner, paused.id)
    assert is_next(any_database, worker, paused)


@pytest.mark.usefixtures("at_every_claim")
def test_a_job_whose_parent_has_succeeded_is_the_next(
    any_database: Database, settings: Settings, worker: Worker
) -> None:
    submit(any_database, settings)
    parent = take(any_database, worker)
    child = submit(any_database, settings, after=parent.id)
    for _ in range(2):
        submit(any_database, settings)
    take(any_database, worker)
    assert floor_of(any_database, child) > child.id
    succeed(any_database, parent)
    assert is_next(any_database, worker, child)


@pytest.mark.usefixtures("at_every_claim")
def test_a_new_job_below_the_floor_is_the_next(
    any_database: Database, settings: Settings, worker: Worker, request: pytest.FixtureRequest
) -> None:
    for _ in range(2):
        submit(any_database, settings)
    take(any_database, worker)
    request.getfixturevalue("clock_that_went_back")
    assert is_next(any_database, worker, submit(any_database, settings))


@pytest.mark.usefixtures("at_every_claim")
def test_a_job_that_is_committed_late_is_the_next(settings: Settings) -> None:
    """On SQLite one writes at a time."""
    with postgres_database() as database:
        worker, first = register(database, settings), submit(database, settings)
        with database.write() as session:
            late = jobs.submit(session, settings, owner="ada", spec=parse("generate", SPEC))
            submit(database, settings)
            take(database, worker)
            take(database, worker)
            assert floor_of(database, first) == ""  # nobody raises it past one that comes in
        submit(database, settings)
        assert is_next(database, worker, late)


@pytest.mark.usefixtures("clock_that_went_back")
def test_a_job_that_comes_while_a_floor_rises_is_the_next(settings: Settings) -> None:
    """On SQLite one writes at a time."""
    with postgres_database() as database, ThreadPoolExecutor(1) as pool:
        worker = register(database, settings)
        entering = threading.Event()
        with database.write() as session:
            job = Job(id="job_1", owner="ada", kind="generate", base="nano-ssd-1b", priority=0)
            lanes.enter(session, job)

        def come() -> Job:
            entering.set()
            return submit(database, settings)

        with database.write() as session:
            lanes.raise_floor(session, job)
            session.flush()
            coming = pool.submit(come)
            entering.wait()
            assert not coming.done()
        assert floor_of(database, job) == "job_1"
        assert is_next(database, worker, coming.result())


@pytest.mark.usefixtures("at_every_claim")
def test_nothing_is_forgotten_in_a_crowd(any_database: Database, settings: Settings) -> None:
    """Jobs come, are claimed and are given back at once, and floors rise all the time."""
    workers = [register(any_database, settings) for _ in range(3)]
    ended: list[str] = []
    deadline = time.monotonic() + 60

    def come(_: int) -> Job:
        return submit(any_database, settings)

    def work(worker: Worker) -> None:
        while len(ended) < 20 and time.monotonic() < deadline:
            with any_database.write() as session:
                jobs = claim(session, worker, BASES)
            for job in jobs:
                if job.attempt < 2:
                    with any_database.write() as session:
                        Attempt(job.id, job.attempt).give_back(session, "worker_lost")
                else:
                    succeed(any_database, job)
                    ended.append(job.id)
            if not jobs:
                time.sleep(0.01)

    with ThreadPoolExecutor(2) as clients, ThreadPoolExecutor(3) as pool:
        coming = clients.map(come, range(20))
        list(pool.map(work, workers))
        made = list(coming)
    states = ["queued", "running", "queued", "running", "succeeded"]
    assert all(history(any_database, job) == states for job in made)
