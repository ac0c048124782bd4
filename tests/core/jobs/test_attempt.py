"""The fence: what an attempt may write, and that it may no longer once another has begun."""

from datetime import timedelta

import pytest

from core.config import Settings
from core.db.engine import Database
from core.db.models import Job, now
from core.jobs import service as jobs
from core.jobs.attempt import MAX_ATTEMPTS, Attempt, LeaseLost
from tests.support.jobs import history, register, reread, submit, take


def begin(database: Database, settings: Settings) -> tuple[Job, Attempt]:
    submit(database, settings)
    job = take(database, register(database, settings))
    return job, Attempt(job.id, job.attempt)


def test_a_job_succeeds_once(any_database: Database, settings: Settings) -> None:
    job, attempt = begin(any_database, settings)
    with any_database.write() as session:
        session.get_one(Job, job.id).claimed_at = now() - timedelta(seconds=90)
    with any_database.write() as session:
        attempt.succeed(session, {"images": []})
    done = reread(any_database, job)
    assert (done.state, done.result) == ("succeeded", {"images": []})
    assert done.device_seconds == pytest.approx(90, abs=5)
    assert done.finished_at is not None
    with pytest.raises(LeaseLost), any_database.write() as session:
        attempt.succeed(session, {"images": ["another"]})
    assert reread(any_database, job).result == {"images": []}


def test_an_attempt_that_lost_its_lease_writes_nothing(
    any_database: Database, settings: Settings
) -> None:
    job, first = begin(any_database, settings)
    with any_database.write() as session:
        assert first.give_back(session, "worker_lost")
    again = take(any_database, register(any_database, settings))
    assert again.attempt == 2
    events = reread(any_database, job).last_seq
    with pytest.raises(LeaseLost), any_database.write() as session:
        first.progress(session, {"step": 1})
    with pytest.raises(LeaseLost), any_database.write() as session:
        first.fail(session, "x", "too late")
    with any_database.write() as session:
        assert first.give_back(session, "too late") is None
    assert reread(any_database, job).last_seq == events
    assert history(any_database, job) == ["queued", "running", "queued", "running"]


def test_a_loss_counts_and_makes_the_job_wait(any_database: Database, settings: Settings) -> None:
    job, attempt = begin(any_database, settings)
    with any_database.write() as session:
        attempt.give_back(session, "runner_lost", pause_seconds=2.0, losses=1)
    waiting = reread(any_database, job)
    assert (waiting.state, waiting.losses, waiting.worker_id) == ("queued", 1, None)
    assert waiting.not_before is not None
    assert waiting.not_before > waiting.queued_at


def test_too_many_attempts_end_the_job(any_database: Database, settings: Settings) -> None:
    job, _ = begin(any_database, settings)
    last = Attempt(job.id, MAX_ATTEMPTS)
    with any_database.write() as session:
        session.get_one(Job, job.id).attempt = MAX_ATTEMPTS
    with any_database.write() as session:
        last.give_back(session, "worker_lost")
    ended = reread(any_database, job)
    assert ended.state == "failed"
    assert ended.error is not None
    assert ended.error["code"] == "worker_lost"
    assert str(MAX_ATTEMPTS) in ended.error["detail"]


def test_a_cancel_that_was_asked_for_survives_the_loss_of_the_worker(
    any_database: Database, settings: Settings
) -> None:
    job, attempt = begin(any_database, settings)
    with any_database.write() as session:
        jobs.cancel(session, job.owner, job.id)
    with any_database.write() as session:
        attempt.give_back(session, "worker_lost")
    assert reread(any_database, job).state == "cancelled"


def test_events_are_numbered_without_a_gap(any_database: Database, settings: Settings) -> None:
    from core.jobs.transition import events_after

    job, attempt = begin(any_database, settings)
    for step in range(5):
        with any_database.write() as session:
            attempt.progress(session, {"step": step})
    with any_database.read() as session:
        events = events_after(session, job.id, after=2, limit=3)
        assert [event.seq for event in events] == [3, 4, 5]
        assert [event.data["step"] for event in events] == [0, 1, 2]
        assert reread(any_database, job).last_seq == 7
