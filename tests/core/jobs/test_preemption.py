"""When a training makes way for a picture, and when it need not."""

from datetime import timedelta

import pytest
from sqlalchemy import update

from core.config import Settings
from core.db.engine import Database
from core.db.models import Event, Job, Worker, now
from core.jobs.attempt import MAX_ATTEMPTS, Attempt
from core.jobs.preemption import PREEMPTED, must_make_way
from core.workers import devices
from tests.core.jobs.test_service import fine_tune, make_dataset
from tests.support.jobs import BASES, change, register, reread, submit, take


@pytest.fixture
def worker(any_database: Database, settings: Settings) -> Worker:
    return register(any_database, settings)


def train(database: Database, settings: Settings, worker: Worker, priority: int = 0) -> Job:
    """A training that runs there."""
    spec = fine_tune(make_dataset(database, 1))
    training = submit(database, settings, kind="fine_tune", spec=spec, priority=priority)
    job = take(database, worker)
    assert job.id == training.id
    return job


def makes_way(database: Database, settings: Settings, worker: Worker, job: Job) -> bool:
    with database.read() as session:
        return must_make_way(session, settings, worker, job.id, BASES)


def preempt(database: Database, job: Job) -> None:
    with database.write() as session:
        Attempt(job.id, job.attempt).give_back(session, PREEMPTED, in_vain=False)


def test_only_a_picture_of_higher_priority_is_made_way_for(
    any_database: Database, settings: Settings, worker: Worker
) -> None:
    job = train(any_database, settings, worker)
    assert not makes_way(any_database, settings, worker, job)
    submit(any_database, settings, priority=0)
    assert not makes_way(any_database, settings, worker, job)
    submit(any_database, settings, priority=1)
    assert makes_way(any_database, settings, worker, job)


def test_a_training_is_not_made_way_for(
    any_database: Database, settings: Settings, worker: Worker
) -> None:
    job = train(any_database, settings, worker)
    submit(any_database, settings, priority=1)
    spec = fine_tune(make_dataset(any_database, 1))
    submit(any_database, settings, kind="fine_tune", spec=spec, priority=2)  # and would be next
    assert not makes_way(any_database, settings, worker, job)


def test_age_is_no_priority_to_make_way_for(
    any_database: Database, settings: Settings, worker: Worker
) -> None:
    job = train(any_database, settings, worker)
    old = submit(any_database, settings)
    change(any_database, old, queued_at=now() - timedelta(hours=5))
    assert not makes_way(any_database, settings, worker, job)


@pytest.mark.parametrize("role", ["any", "generate"])
def test_nobody_makes_way_while_another_device_is_free_for_it(
    any_database: Database, settings: Settings, worker: Worker, role: str
) -> None:
    job = train(any_database, settings, worker)
    register(any_database, settings, device="cpu:1", role=role)
    submit(any_database, settings, priority=1)
    assert not makes_way(any_database, settings, worker, job)


def test_a_device_that_cannot_draw_it_is_no_help(
    any_database: Database, settings: Settings, worker: Worker
) -> None:
    job = train(any_database, settings, worker)
    register(any_database, settings, device="cpu:1", role="train")
    held = register(any_database, settings, device="cpu:2")
    poor = register(any_database, settings, device="cpu:3")
    with any_database.write() as session:
        devices.drain(session, held.id)
        session.get_one(Worker, poor.id).bases = ["nano-sdxl"]
    submit(any_database, settings, priority=1)
    assert makes_way(any_database, settings, worker, job)


def test_a_device_that_may_not_claim_keeps_its_training(
    any_database: Database, settings: Settings, worker: Worker
) -> None:
    job = train(any_database, settings, worker)
    submit(any_database, settings, priority=1)
    with any_database.write() as session:
        devices.drain(session, worker.id)
    assert not makes_way(any_database, settings, worker, job)


def test_the_training_that_matters_least_makes_way(
    any_database: Database, settings: Settings, worker: Worker
) -> None:
    other = register(any_database, settings, device="cpu:1")
    first = train(any_database, settings, worker, priority=1)
    second = train(any_database, settings, other, priority=0)
    submit(any_database, settings, priority=5)
    assert not makes_way(any_database, settings, worker, first)
    assert makes_way(any_database, settings, other, second)


def test_no_training_makes_way_too_often(
    any_database: Database, settings: Settings, worker: Worker
) -> None:
    twice = settings.model_copy(update={"max_preemptions_per_hour": 2})
    job = train(any_database, settings, worker)
    for _ in range(2):
        preempt(any_database, job)
        job = take(any_database, worker)
    submit(any_database, settings, priority=1)
    assert not makes_way(any_database, twice, worker, job)
    with any_database.write() as session:
        session.execute(update(Event).values(at=now() - timedelta(hours=1, seconds=1)))
    assert makes_way(any_database, twice, worker, job)


def test_making_way_is_no_attempt_in_vain(
    any_database: Database, settings: Settings, worker: Worker
) -> None:
    job = train(any_database, settings, worker)
    for _ in range(2 * MAX_ATTEMPTS):
        preempt(any_database, job)
        job = take(any_database, worker)
    assert reread(any_database, job).pauses == 2 * MAX_ATTEMPTS


def test_the_last_attempt_may_make_way_too(
    any_database: Database, settings: Settings, worker: Worker
) -> None:
    job = train(any_database, settings, worker)
    change(any_database, job, attempt=MAX_ATTEMPTS)
    job = reread(any_database, job)
    preempt(any_database, job)
    assert reread(any_database, job).state == "queued"
    job = take(any_database, worker)
    with any_database.write() as session:
        Attempt(job.id, job.attempt).give_back(session, "worker_lost")
    assert reread(any_database, job).state == "failed"
