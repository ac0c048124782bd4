"""How many jobs of one owner run, and how many bytes are theirs."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select

from core.artifacts import service as artifacts
from core.artifacts.service import StoredFile
from core.config import GIB, Settings
from core.db.engine import Database
from core.db.models import Job, Worker, is_running
from core.errors import TooMany
from core.jobs.attempt import Attempt
from core.jobs.claim import claim, is_claimable, next_up
from core.owners import quotas
from core.owners import service as owners
from tests.core.jobs.test_service import make_dataset
from tests.support import jobs as make
from tests.support.databases import postgres_database

LIMIT = 2


def a_key(database: Database, owner: str) -> None:
    with database.write() as session:
        owners.create(session, owner=owner, name="x", scopes=["read"])


def take(database: Database, worker: Worker, limit: int = LIMIT) -> list[Job]:
    """What a claim takes; the looks before it must agree that there is something, or nothing."""
    with database.write() as session:
        told = is_claimable(session, worker, make.BASES, max_running=limit)
        assert told == (next_up(session, worker, make.BASES, max_running=limit) is not None)
        taken = claim(session, worker, make.BASES, max_running=limit)
        assert told == bool(taken)
        return taken


def running(database: Database) -> Counter[str]:
    with database.read() as session:
        return Counter(session.scalars(select(Job.owner).where(is_running)))


def test_further_jobs_of_an_owner_wait(any_database: Database, settings: Settings) -> None:
    for owner in ("ada", "ada", "ada", "bob"):
        make.submit(any_database, settings, owner=owner)
    worker = make.register(any_database, settings)
    taken = [job for _ in range(5) for job in take(any_database, worker)]
    assert Counter(job.owner for job in taken) == {"ada": LIMIT, "bob": 1}
    first = next(job for job in taken if job.owner == "ada")
    with any_database.write() as session:
        Attempt(first.id, first.attempt).succeed(session, {})
    assert [job.owner for job in take(any_database, worker)] == ["ada"]
    assert take(any_database, worker) == []


def test_without_a_limit_all_that_waits_is_taken(
    any_database: Database, settings: Settings
) -> None:
    for _ in range(3):
        make.submit(any_database, settings)
    worker = make.register(any_database, settings)
    for _ in range(3):
        make.take(any_database, worker)


def test_a_batch_holds_no_more_of_an_owner_than_may_run(
    any_database: Database, settings: Settings
) -> None:
    for owner in ("ada", "bob"):
        a_key(any_database, owner)
        for _ in range(4):
            make.submit(any_database, settings, owner=owner, has_company=True)
    worker = make.register(any_database, settings)
    assert Counter(job.owner for job in take(any_database, worker)) == {"ada": 2, "bob": 2}
    assert take(any_database, worker) == []


def test_what_runs_already_counts_in_a_batch(any_database: Database, settings: Settings) -> None:
    for owner in ("ada", "bob"):
        a_key(any_database, owner)
    make.submit(any_database, settings, owner="bob")
    worker = make.register(any_database, settings)
    take(any_database, worker)
    for owner in ("ada", "bob", "bob"):
        make.submit(any_database, settings, owner=owner, has_company=True)
    assert Counter(job.owner for job in take(any_database, worker)) == {"ada": 1, "bob": 1}


@pytest.mark.parametrize("has_company", [False, True])
def test_workers_that_claim_at_once_keep_the_limit(
    has_company: bool, any_database: Database, settings: Settings
) -> None:
    for owner in ("ada", "bob", "eve"):
        a_key(any_database, owner)
        for _ in range(8):
            make.submit(any_database, settings, owner=owner, has_company=has_company)
    workers = [make.register(any_database, settings, device=f"cpu:{n}") for n in range(8)]

    def go(worker: Worker) -> None:
        for _ in range(4):
            with any_database.write() as session:
                claim(session, worker, make.BASES, max_running=LIMIT)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(go, workers))
    assert running(any_database) == {"ada": LIMIT, "bob": LIMIT, "eve": LIMIT}


def test_who_is_counted_elsewhere_is_left_out_of_a_batch(settings: Settings) -> None:
    with postgres_database() as database:  # the other has one transaction at a time
        for owner in ("ada", "bob"):
            a_key(database, owner)
            make.submit(database, settings, owner=owner, has_company=True)
        worker = make.register(database, settings)
        with database.write() as session:
            quotas.hold(session, "bob")
            assert [job.owner for job in take(database, worker)] == ["ada"]
        assert [job.owner for job in take(database, worker)] == ["bob"]


def an_artifact(database: Database, owner: str, size: int) -> None:
    with database.write() as session:
        artifacts.record(
            session,
            owner=owner,
            job_id=None,
            kind="lora",
            role="lora",
            name="dog",
            format="peft",
            files=[StoredFile("dog.safetensors", size, "0" * 64, "x")],
        )


def test_artifacts_and_pictures_are_counted(any_database: Database) -> None:
    with any_database.read() as session:
        assert quotas.stored_bytes(session, "ada") == 0
    an_artifact(any_database, "ada", 5 * GIB)
    an_artifact(any_database, "ada", 7)
    an_artifact(any_database, "bob", 100)
    make_dataset(any_database, 3)
    with any_database.read() as session:
        pictures = quotas.stored_bytes(session, "ada") - 5 * GIB - 7
        assert pictures > 0
        assert quotas.stored_bytes(session, "bob") == 100


def test_no_job_of_whoever_stores_too_much(any_database: Database, settings: Settings) -> None:
    tight = settings.model_copy(update={"max_stored_bytes": 1000})
    make.submit(any_database, tight)
    an_artifact(any_database, "ada", 1000)
    with pytest.raises(TooMany, match="take 1,000 bytes; 1,000 bytes is your limit") as refused:
        make.submit(any_database, tight)
    assert (refused.value.code, refused.value.retry_after_seconds) == ("too_many_bytes", 600)
    make.submit(any_database, tight, owner="bob")
    make.submit(any_database, settings)
