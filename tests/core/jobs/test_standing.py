"""Places in the queue are what the claim then does, as far as anybody can tell."""

import pytest

from core.config import Settings
from core.db.engine import Database
from core.db.models import Job, Worker
from core.jobs.standing import Standing, eta_seconds
from core.workers import devices
from tests.core.jobs.test_service import fine_tune, make_dataset
from tests.support.jobs import change, register, submit, succeed, take


def places(database: Database, *jobs: Job) -> dict[str, int]:
    """Of jobs of any owners."""
    found: dict[str, int] = {}
    with database.read() as session:
        for owner in {job.owner for job in jobs}:
            own = [job for job in jobs if job.owner == owner]
            found |= Standing().positions(session, own)
    return found


def etas(database: Database, *jobs: Job) -> list[float | None]:
    with database.read() as session:
        positions = Standing().positions(session, jobs)
        told = eta_seconds(session, {job: positions[job.id] for job in jobs})
    return [told[job.id] for job in jobs]


def train(database: Database, settings: Settings, owner: str = "ada") -> Job:
    spec = fine_tune(make_dataset(database, 1, owner))
    return submit(database, settings, kind="fine_tune", spec=spec, owner=owner)


@pytest.fixture
def worker(any_database: Database, settings: Settings) -> Worker:
    return register(any_database, settings)


def test_places_tell_the_order_of_the_claims_to_come(
    any_database: Database, settings: Settings, worker: Worker
) -> None:
    jobs = [
        *(submit(any_database, settings, owner="ann") for _ in range(4)),
        *(submit(any_database, settings, owner="bob") for _ in range(2)),
        train(any_database, settings, owner="bob"),
        submit(any_database, settings, owner="eve", priority=4),
        submit(any_database, settings, owner="eve", priority=-4),
    ]
    told = places(any_database, *jobs)
    assert sorted(told.values()) == list(range(1, len(jobs) + 1))
    taken = [take(any_database, worker).id for _ in jobs]
    assert sorted(told, key=lambda job_id: told[job_id]) == taken


def test_what_does_not_wait_for_a_device_has_no_place(
    any_database: Database, settings: Settings, worker: Worker
) -> None:
    submit(any_database, settings)
    running = take(any_database, worker)
    waiting = submit(any_database, settings)
    child = submit(any_database, settings, after=running.id)
    assert places(any_database, running, waiting, child) == {waiting.id: 1}
    with any_database.read() as session:
        assert Standing().crowd(session).depth == 1


def test_the_crowd_is_counted_again_only_now_and_then(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 2.0, 21.9, 22.1, 22.1])
    monkeypatch.setattr("core.jobs.standing.time.monotonic", lambda: next(clock))
    standing, depths = Standing(), []
    for _ in range(3):  # the first count took 2 s and is good for 20 more
        submit(database, settings)
        with database.read() as session:
            depths.append(standing.crowd(session).depth)
    assert depths == [1, 1, 3]


def test_nobody_can_tell_when_nothing_was_measured(
    any_database: Database, settings: Settings, worker: Worker
) -> None:
    assert etas(any_database, submit(any_database, settings)) == [None]


def measure(database: Database, settings: Settings, worker: Worker, seconds: float) -> None:
    submit(database, settings, priority=100)
    job = take(database, worker)
    succeed(database, job)
    change(database, job, device_seconds=seconds)


def test_the_time_to_come_follows_from_the_times_before(
    any_database: Database, settings: Settings, worker: Worker
) -> None:
    measure(any_database, settings, worker, seconds=30)
    measure(any_database, settings, worker, seconds=50)
    first, second, third = (submit(any_database, settings) for _ in range(3))
    training = train(any_database, settings)
    assert etas(any_database, first, second, third, training) == [0.0, 40.0, 80.0, None]
    running = take(any_database, worker)
    assert etas(any_database, second, third) == [40.0, 80.0]
    change(any_database, running, progress=running.progress | {"eta_seconds": 7.0})
    assert etas(any_database, second, third) == [7.0, 47.0]
    register(any_database, settings, device="cpu:1")
    assert etas(any_database, second, third) == [0.0, 23.5]


def test_devices_that_are_held_back_serve_nobody(
    any_database: Database, settings: Settings, worker: Worker
) -> None:
    measure(any_database, settings, worker, seconds=30)
    job = submit(any_database, settings)
    with any_database.write() as session:
        devices.drain(session, worker.id)
    assert etas(any_database, job) == [None]
