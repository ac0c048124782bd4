"""A job in place of one that ended without success."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select

from core.config import Settings
from core.db.engine import Database
from core.db.models import Job, JobInput
from core.errors import NotFound, Unprocessable, WrongState
from core.jobs import expiry, removal
from core.jobs import service as jobs
from core.jobs.attempt import Attempt
from tests.core.jobs.test_service import SAVED, fine_tune, make_dataset
from tests.support.jobs import SPEC, fail, register, reread, submit, succeed, take


def retry(database: Database, settings: Settings, job: Job, owner: str = "ada") -> Job:
    with database.write() as session:
        return jobs.retry(session, settings, owner, job.id)


def cancel(database: Database, job: Job) -> None:
    with database.write() as session:
        jobs.cancel(session, "ada", job.id)


def expire(database: Database, job: Job) -> None:
    with database.write() as session:
        expiry.expire(session, job.id)


def inputs_of(database: Database, job: Job) -> set[tuple[str, str]]:
    with database.read() as session:
        rows = session.scalars(select(JobInput).where(JobInput.job_id == job.id))
        return {(row.kind, row.input_id) for row in rows}


def train(database: Database, settings: Settings) -> Job:
    """A training that has saved step 500, and runs."""
    worker = register(database, settings)
    spec = fine_tune(make_dataset(database, 1), seed=5)
    about: dict[str, Any] = {"name": "dog", "priority": -3, "labels": {"for": "a test"}}
    submit(database, settings, kind="fine_tune", spec=spec, **about)
    job = take(database, worker)
    with database.write() as session:
        said = {"message": "saved"}
        Attempt(job.id, 1).tell(session, "log", said, checkpoints=[SAVED, SAVED], rung=2)
    return job


def test_a_training_goes_on_from_where_it_was_saved(
    any_database: Database, settings: Settings
) -> None:
    failed = fail(any_database, train(any_database, settings))
    again = retry(any_database, settings, failed)
    assert again.id != failed.id
    assert (again.state, again.parent, again.attempt) == ("queued", failed.id, 0)
    assert (again.spec, again.name, again.labels) == (failed.spec, "dog", {"for": "a test"})
    assert (again.priority, again.lane, again.rung) == (-3, failed.lane, 2)
    assert again.checkpoints == [SAVED]
    assert ("job", failed.id) in inputs_of(any_database, again)
    assert reread(any_database, failed).state == "failed"


def test_it_needs_whoever_keeps_its_checkpoint(any_database: Database, settings: Settings) -> None:
    """A retry that fails before it has saved anything hands on what it was handed."""
    first = train(any_database, settings)
    key = f"jobs/{first.id}/1/a"
    file = {"path": "facts.json", "bytes": 1, "sha256": "0" * 64, "store_key": key}
    kept = {"step": 500, "files": [file]}
    with any_database.write() as session:
        session.get_one(Job, first.id).checkpoints = [kept]
    fail(any_database, first)
    second = retry(any_database, settings, first)
    fail(any_database, take(any_database, register(any_database, settings)))
    third = retry(any_database, settings, second)
    assert third.checkpoints == [kept]
    assert {("job", first.id), ("job", second.id)} <= inputs_of(any_database, third)


@pytest.mark.parametrize("end", [cancel, expire])
def test_what_was_cancelled_or_has_expired_is_tried_again(
    any_database: Database, settings: Settings, end: Callable[[Database, Job], None]
) -> None:
    job = submit(any_database, settings, deadline_seconds=60)
    end(any_database, job)
    again = retry(any_database, settings, job)
    assert (again.state, again.spec, again.expires_at) == ("queued", job.spec, None)
    assert take(any_database, register(any_database, settings)).id == again.id


def test_it_still_waits_for_what_the_first_had_not_seen_the_end_of(
    any_database: Database, settings: Settings
) -> None:
    worker = register(any_database, settings)
    parent = submit(any_database, settings)
    child = submit(any_database, settings, after=parent.id)
    cancel(any_database, child)
    again = retry(any_database, settings, child)
    assert (again.after, again.waits) == (parent.id, 1)
    succeed(any_database, take(any_database, worker))
    assert fail(any_database, take(any_database, worker)).id == again.id
    assert retry(any_database, settings, again).after is None


def test_what_it_waited_for_may_be_deleted(any_database: Database, settings: Settings) -> None:
    parent = submit(any_database, settings)
    child = submit(any_database, settings, after=parent.id)
    cancel(any_database, child)
    succeed(any_database, take(any_database, register(any_database, settings)))
    with any_database.write() as session:
        removal.remove(session, settings, "ada", parent.id)
    again = retry(any_database, settings, child)
    assert (again.state, again.after, again.waits) == ("queued", None, 0)


def test_a_lora_that_was_never_made_is_missed_again(
    any_database: Database, settings: Settings
) -> None:
    training = train(any_database, settings)
    drawing = submit(any_database, settings, spec=SPEC | {"loras": [{"job": training.id}]})
    fail(any_database, training)
    with pytest.raises(Unprocessable, match=rf"'{training.id}' has failed") as refused:
        retry(any_database, settings, drawing)
    assert refused.value.code == "parent_failed"


def test_what_is_under_way_or_has_succeeded_is_not_tried_again(
    any_database: Database, settings: Settings
) -> None:
    submit(any_database, settings)
    running = take(any_database, register(any_database, settings))
    with pytest.raises(WrongState, match="is running: only what has failed") as refused:
        retry(any_database, settings, running)
    assert refused.value.allowed_actions == ["cancel", "pause"]
    with pytest.raises(NotFound):
        retry(any_database, settings, running, owner="bob")
    succeed(any_database, running)
    with pytest.raises(WrongState, match="is succeeded") as refused:
        retry(any_database, settings, running)
    assert refused.value.allowed_actions == []


def test_what_failed_with_its_parent_is_not_begun_without_it(
    any_database: Database, settings: Settings
) -> None:
    parent = submit(any_database, settings)
    child = submit(any_database, settings, after=parent.id)
    cancel(any_database, parent)
    assert reread(any_database, child).state == "failed"
    with pytest.raises(Unprocessable, match=f"'{parent.id}' has cancelled") as refused:
        retry(any_database, settings, child)
    assert refused.value.code == "parent_failed"
