"""A job that pauses is out of the queue, keeps what it has, and goes on when it is told to."""

from collections.abc import Callable

import pytest

from core.config import Settings
from core.db.engine import Database
from core.db.models import Job, Worker
from core.errors import TooMany, WrongState
from core.jobs import service as jobs
from core.jobs.attempt import MAX_ATTEMPTS, Attempt
from core.jobs.claim import is_claimable
from core.jobs.progress import at_rest, progress_of
from core.jobs.standing import Standing
from core.jobs.states import State
from core.workers import service as workers
from tests.core.jobs.test_service import SAVED
from tests.support.jobs import BASES, beat, history, register, reread, submit, take


def pause(database: Database, job: Job) -> Job:
    with database.write() as session:
        return jobs.pause(session, job.owner, job.id)


def resume(database: Database, job: Job) -> Job:
    with database.write() as session:
        return jobs.resume(session, job.owner, job.id)


def cancel(database: Database, job: Job) -> Job:
    with database.write() as session:
        return jobs.cancel(session, job.owner, job.id)


def give_back(database: Database, job: Job, reason: str = "pause_requested") -> None:
    with database.write() as session:
        Attempt(job.id, job.attempt).give_back(session, reason)


@pytest.fixture
def running(any_database: Database, settings: Settings) -> tuple[Worker, Job]:
    worker = register(any_database, settings)
    submit(any_database, settings)
    return worker, take(any_database, worker)


def test_a_waiting_job_leaves_the_queue_at_once(any_database: Database, settings: Settings) -> None:
    job, behind = submit(any_database, settings), submit(any_database, settings)
    for _ in range(2):  # repeating is harmless
        assert pause(any_database, job).state == "paused"
    with any_database.read() as session:
        assert Standing().positions(session, [behind]) == {behind.id: 1}
    worker = register(any_database, settings)
    assert take(any_database, worker).id == behind.id
    with any_database.read() as session:
        assert not is_claimable(session, worker, BASES)
    for _ in range(2):
        assert resume(any_database, job).state == "queued"
    assert take(any_database, worker).id == job.id
    assert history(any_database, job) == ["queued", "paused", "queued", "running"]


def test_a_running_job_is_asked_and_keeps_its_checkpoints(
    any_database: Database, running: tuple[Worker, Job]
) -> None:
    worker, job = running
    with any_database.write() as session:
        Attempt(job.id, 1).tell(session, "log", {"message": "saved"}, checkpoints=[SAVED], rung=1)
    for _ in range(2):
        asked = pause(any_database, job)
        assert (asked.state, asked.pause_requested) == ("running", True)
    assert beat(any_database, worker).wishes == {job.id: "pause"}
    give_back(any_database, job)
    paused = reread(any_database, job)
    assert (paused.state, paused.pause_requested, paused.worker_id) == ("paused", False, None)
    assert (paused.checkpoints, paused.rung, paused.losses) == ([SAVED], 1, 0)
    resume(any_database, job)
    again = take(any_database, worker)
    assert (again.id, again.attempt, again.checkpoints) == (job.id, 2, [SAVED])
    assert beat(any_database, worker).wishes == {}
    assert history(any_database, job) == ["queued", "running", "paused", "queued", "running"]


def test_pauses_are_no_attempts_in_vain(
    any_database: Database, running: tuple[Worker, Job]
) -> None:
    worker, job = running
    for _ in range(MAX_ATTEMPTS):
        pause(any_database, job)
        give_back(any_database, job)
        resume(any_database, job)
        job = take(any_database, worker)
    give_back(any_database, job, "worker_stopped")
    assert reread(any_database, job).state == "queued"


def test_a_job_at_rest_says_so(any_database: Database, running: tuple[Worker, Job]) -> None:
    _, job = running
    told = progress_of(7, 10, message="training", eta_seconds=3.0)
    with any_database.write() as session:
        Attempt(job.id, 1).tell(session, "progress", told, progress=told)
    pause(any_database, job)
    give_back(any_database, job)
    assert reread(any_database, job).progress == at_rest(told, State.PAUSED)
    resume(any_database, job)
    progress = reread(any_database, job).progress
    assert (progress["step"], progress["message"], progress["eta_seconds"]) == (7, "queued", None)


def test_a_pause_is_withdrawn_before_it_took_place(
    any_database: Database, running: tuple[Worker, Job]
) -> None:
    worker, job = running
    pause(any_database, job)
    assert resume(any_database, job).pause_requested is False
    with any_database.read() as session:
        assert workers.wishes(session, worker.id) == {}
    give_back(any_database, job)  # the runner had stopped already
    assert reread(any_database, job).state == "queued"


def test_a_cancel_counts_for_more_than_a_pause(
    any_database: Database, running: tuple[Worker, Job]
) -> None:
    worker, job = running
    pause(any_database, job)
    cancel(any_database, job)
    assert beat(any_database, worker).wishes == {job.id: "cancel"}
    give_back(any_database, job)
    assert reread(any_database, job).state == "cancelled"


def test_a_pause_outlives_the_worker_that_was_asked(
    any_database: Database, running: tuple[Worker, Job]
) -> None:
    _, job = running
    pause(any_database, job)
    with any_database.write() as session:
        Attempt(job.id, 1).give_back(session, "worker_lost", losses=1)
    assert (reread(any_database, job).state, reread(any_database, job).losses) == ("paused", 1)


def test_a_job_may_end_before_its_pause(
    any_database: Database, running: tuple[Worker, Job]
) -> None:
    _, job = running
    pause(any_database, job)
    with any_database.write() as session:
        Attempt(job.id, 1).succeed(session, {})
    assert reread(any_database, job).state == "succeeded"


def test_a_paused_job_is_cancelled_at_once(any_database: Database, settings: Settings) -> None:
    job = submit(any_database, settings)
    pause(any_database, job)
    assert cancel(any_database, job).state == "cancelled"


def test_a_paused_job_counts_among_those_that_wait(database: Database, settings: Settings) -> None:
    small = settings.model_copy(update={"max_queued_jobs": 1})
    pause(database, submit(database, small))
    with pytest.raises(TooMany):
        submit(database, small)


@pytest.mark.parametrize("action", [pause, resume])
def test_what_ended_neither_pauses_nor_resumes(
    action: Callable[[Database, Job], Job], any_database: Database, settings: Settings
) -> None:
    job = submit(any_database, settings)
    cancel(any_database, job)
    with pytest.raises(WrongState, match=r"has ended \(cancelled\)") as refused:
        action(any_database, job)
    assert refused.value.allowed_actions == ["retry"]
