"""An ended job goes with all that it made, unless another one needs some of it."""

from datetime import timedelta

import pytest
from sqlalchemy import select

from core.artifacts.store import Store
from core.config import Settings
from core.db.engine import Database
from core.db.models import Artifact, Deletion, Job, Worker, now
from core.errors import InUse, NotFound, WrongState
from core.jobs import removal
from core.jobs import service as jobs
from tests.core.test_retention import make_lora, rows_of, store, train, worker
from tests.support.jobs import SPEC, fail, reread, submit, succeed, take

__all__ = ["store", "worker"]


@pytest.fixture
def trained(any_database: Database, settings: Settings, worker: Worker, store: Store) -> Job:
    job = train(any_database, settings, worker, store)
    lora = make_lora(any_database, store, job)
    return succeed(any_database, job, lora=lora.id)


def remove(database: Database, settings: Settings, job: Job, owner: str = "ada") -> None:
    with database.write() as session:
        removal.remove(session, settings, owner, job.id)


def cancel(database: Database, job: Job) -> None:
    with database.write() as session:
        jobs.cancel(session, "ada", job.id)


def test_it_goes_with_its_rows_and_its_folder(
    any_database: Database, settings: Settings, trained: Job
) -> None:
    with pytest.raises(NotFound):
        remove(any_database, settings, trained, owner="bob")
    remove(any_database, settings, trained)
    assert rows_of(any_database, trained) == 0
    with any_database.read() as session:
        assert session.get(Job, trained.id) is None
        (folder,) = session.scalars(select(Deletion))
    assert folder.prefix == f"jobs/{trained.id}/"
    assert folder.until  # a worker that lost the job may write on
    assert folder.until > now() + timedelta(seconds=settings.lease_seconds)
    with pytest.raises(NotFound):
        remove(any_database, settings, trained)


def test_only_what_has_ended_goes(any_database: Database, settings: Settings) -> None:
    job = submit(any_database, settings)
    with pytest.raises(WrongState, match="is queued: only a job that has ended") as refused:
        remove(any_database, settings, job)
    assert refused.value.allowed_actions == ["cancel", "pause"]
    cancel(any_database, job)
    remove(any_database, settings, job)


def test_it_stays_while_a_job_needs_some_of_it(
    any_database: Database, settings: Settings, trained: Job
) -> None:
    lora = (trained.result or {})["lora"]
    needing = [
        submit(any_database, settings, spec=SPEC | {"loras": [{"artifact": lora}]}),
        submit(any_database, settings, spec=SPEC | {"loras": [{"job": trained.id}]}),
        submit(any_database, settings, after=trained.id),
    ]
    with any_database.write() as session:
        needing.append(jobs.extend(session, settings, "ada", trained.id, steps=5))
    while needing:
        with pytest.raises(InUse, match="needs job") as refused:
            remove(any_database, settings, trained)
        (named,) = [job for job in needing if job.id in refused.value.detail]
        cancel(any_database, named)
        needing.remove(named)
    remove(any_database, settings, trained)


def test_a_lora_that_was_deleted_is_missed_at_submit(
    any_database: Database, settings: Settings, trained: Job
) -> None:
    drawing = SPEC | {"loras": [{"job": trained.id}]}
    assert submit(any_database, settings, spec=drawing).state == "queued"
    with any_database.write() as session:
        session.delete(session.get_one(Artifact, (trained.result or {})["lora"]))
    with pytest.raises(NotFound, match="no artifact"):
        submit(any_database, settings, spec=drawing)


def test_who_could_have_gone_on_from_it_begins_again(
    any_database: Database, settings: Settings, worker: Worker, store: Store
) -> None:
    first = train(any_database, settings, worker, store)
    fail(any_database, first)
    with any_database.write() as session:
        jobs.retry(session, settings, "ada", first.id)
    second = fail(any_database, take(any_database, worker))
    assert second.checkpoints == first.checkpoints
    remove(any_database, settings, first)
    assert reread(any_database, second).checkpoints == []
    with any_database.write() as session:
        assert jobs.retry(session, settings, "ada", second.id).checkpoints == []
