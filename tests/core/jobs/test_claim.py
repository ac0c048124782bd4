"""Who gets which job, and that nobody else gets it too."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import update

from core.config import Settings
from core.db.engine import Database
from core.db.models import Job, Worker, now
from core.jobs.claim import claim, is_claimable
from tests.support.jobs import BASES, history, register, submit, take


def test_a_claim_raises_the_attempt_and_names_the_worker(
    any_database: Database, settings: Settings
) -> None:
    submitted = submit(any_database, settings)
    worker = register(any_database, settings)
    job = take(any_database, worker)
    assert (job.id, job.state, job.attempt) == (submitted.id, "running", 1)
    assert (job.worker_id, job.device) == (worker.id, "cpu")
    assert history(any_database, job) == ["queued", "running"]


def test_nothing_to_claim(any_database: Database, settings: Settings) -> None:
    worker = register(any_database, settings)
    with any_database.write() as session:
        assert not is_claimable(session, worker, BASES)
        assert claim(session, worker, BASES) is None


def test_the_order_is_priority_then_age(any_database: Database, settings: Settings) -> None:
    first = submit(any_database, settings)
    second = submit(any_database, settings)
    urgent = submit(any_database, settings, priority=5)
    lazy = submit(any_database, settings, priority=-1)
    worker = register(any_database, settings)
    taken = [take(any_database, worker).id for _ in range(4)]
    assert taken == [urgent.id, first.id, second.id, lazy.id]


def test_a_role_takes_only_its_kinds(any_database: Database, settings: Settings) -> None:
    submit(any_database, settings)
    trainer = register(any_database, settings, role="train")
    painter = register(any_database, settings, role="generate")
    with any_database.write() as session:
        assert claim(session, trainer, BASES) is None
        assert claim(session, painter, BASES) is not None


def test_a_worker_leaves_jobs_on_a_base_that_it_lacks(
    any_database: Database, settings: Settings
) -> None:
    submit(any_database, settings)
    worker = register(any_database, settings)
    with any_database.write() as session:
        assert not is_claimable(session, worker, ["nano-sdxl"])
        assert claim(session, worker, ["nano-sdxl"]) is None
        assert claim(session, worker, ["nano-ssd-1b"]) is not None


def test_a_job_that_waits_out_a_loss_is_not_claimable(
    any_database: Database, settings: Settings
) -> None:
    job, worker = submit(any_database, settings), register(any_database, settings)
    with any_database.write() as session:
        session.execute(
            update(Job).where(Job.id == job.id).values(not_before=now() + timedelta(seconds=60))
        )
        assert not is_claimable(session, worker, BASES)


@pytest.mark.parametrize("num_workers", [4])
def test_eight_jobs_and_four_workers_at_once(
    any_database: Database, settings: Settings, num_workers: int
) -> None:
    submitted = {submit(any_database, settings).id for _ in range(8)}
    workers = [register(any_database, settings) for _ in range(num_workers)]

    def take_all(worker: Worker) -> list[str]:
        taken: list[str] = []
        while True:
            with any_database.write() as session:
                job = claim(session, worker, BASES)
            if job is None:
                return taken
            taken.append(job.id)

    with ThreadPoolExecutor(num_workers) as pool:
        taken = [job_id for ids in pool.map(take_all, workers) for job_id in ids]
    assert sorted(taken) == sorted(submitted)
