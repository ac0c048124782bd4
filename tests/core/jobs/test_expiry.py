"""A deadline: what was not begun by then is not begun at all."""

from datetime import timedelta

from core.config import Settings
from core.db.engine import Database
from core.db.models import Job, now
from core.jobs import expiry
from core.jobs import service as jobs
from core.jobs.attempt import Attempt
from core.jobs.reaper import Reaper
from tests.support.jobs import change, history, register, reread, submit, succeed, take

PAST = timedelta(seconds=-1)


def overdue(database: Database) -> list[str]:
    with database.read() as session:
        return expiry.overdue(session)


def test_the_deadline_counts_from_the_submit(any_database: Database, settings: Settings) -> None:
    job = submit(any_database, settings, deadline_seconds=90)
    assert job.expires_at is not None
    assert 80 < (job.expires_at - now()).total_seconds() <= 90
    assert submit(any_database, settings).expires_at is None


def test_the_reaper_ends_what_is_overdue(any_database: Database, settings: Settings) -> None:
    late = submit(any_database, settings, deadline_seconds=60)
    submit(any_database, settings, deadline_seconds=60)
    submit(any_database, settings)
    child = submit(any_database, settings, after=late.id)
    change(any_database, late, expires_at=now() + PAST)
    assert overdue(any_database) == [late.id]
    Reaper(any_database, settings).look()
    expired = reread(any_database, late)
    assert expired.state == "expired"
    assert expired.error is not None
    assert expired.error["code"] == "deadline_passed"
    assert expired.finished_at is not None
    assert history(any_database, late) == ["queued", "expired"]
    error = reread(any_database, child).error
    assert error is not None
    assert error["detail"].endswith("which has expired.")
    assert overdue(any_database) == []


def test_what_was_begun_in_time_never_expires(any_database: Database, settings: Settings) -> None:
    job = submit(any_database, settings, deadline_seconds=60)
    running = take(any_database, register(any_database, settings))
    change(any_database, job, expires_at=now() + PAST)
    assert overdue(any_database) == []
    with any_database.write() as session:
        assert expiry.expire(session, job.id) is None
        Attempt(running.id, running.attempt).give_back(session, "worker_stopped")
    assert overdue(any_database) == []
    with any_database.write() as session:
        assert expiry.expire(session, job.id) is None


def test_a_job_may_expire_while_it_waits_for_another(
    any_database: Database, settings: Settings
) -> None:
    parent = submit(any_database, settings)
    child = submit(any_database, settings, after=parent.id, deadline_seconds=60)
    change(any_database, child, expires_at=now() + PAST)
    reaper = Reaper(any_database, settings)
    reaper.look()
    assert reread(any_database, child).state == "expired"
    succeed(any_database, take(any_database, register(any_database, settings)))
    assert reread(any_database, parent).state == "succeeded"
    assert history(any_database, child) == ["queued", "expired"]


def test_a_paused_job_expires_once_it_is_back(any_database: Database, settings: Settings) -> None:
    job = submit(any_database, settings, deadline_seconds=60)
    with any_database.write() as session:
        jobs.pause(session, "ada", job.id)
    change(any_database, job, expires_at=now() + PAST)
    assert overdue(any_database) == []
    with any_database.write() as session:
        jobs.resume(session, "ada", job.id)
    assert overdue(any_database) == [job.id]


def test_two_that_expire_a_job_at_once_do_so_once(
    any_database: Database, settings: Settings
) -> None:
    job = submit(any_database, settings, deadline_seconds=60)
    ended: list[Job | None] = []
    for _ in range(2):
        with any_database.write() as session:
            ended.append(expiry.expire(session, job.id))
    assert [each is not None for each in ended] == [True, False]
