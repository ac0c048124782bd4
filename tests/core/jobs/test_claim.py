"""Who gets which job, and that nobody else gets it too."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import groupby
from typing import Any

import pytest
from sqlalchemy import event, update

from core.config import Settings
from core.db.engine import Database
from core.db.models import Job, Worker, now
from core.jobs import claim as claim_module
from core.jobs.attempt import Attempt
from core.jobs.claim import SHUN_SECONDS, claim, is_claimable
from core.jobs.order import Head
from core.jobs.reaper import Reaper
from core.jobs.standing import Standing
from core.workers import devices
from core.workers import service as workers
from tests.support.jobs import BASES, SPEC, change, history, register, submit, take


def may_claim(database: Database, worker: Worker) -> bool:
    """Whether there is something for this worker; the look and the claim agree."""
    with database.write() as session:
        told = is_claimable(session, worker, BASES)
        taken = claim(session, worker, BASES)
        session.rollback()
    assert told == bool(taken)
    return told


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
        assert claim(session, worker, BASES) == []


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
        assert claim(session, trainer, BASES) == []
        assert claim(session, painter, BASES) is not None


def test_a_worker_leaves_jobs_on_a_base_that_it_lacks(
    any_database: Database, settings: Settings
) -> None:
    submit(any_database, settings)
    worker = register(any_database, settings)
    with any_database.write() as session:
        assert not is_claimable(session, worker, ["nano-sdxl"])
        assert claim(session, worker, ["nano-sdxl"]) == []
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


def test_owners_take_turns_however_much_one_of_them_asks_for(
    any_database: Database, settings: Settings
) -> None:
    for _ in range(6):
        submit(any_database, settings, owner="ann")
    for _ in range(3):
        submit(any_database, settings, owner="bob")
    worker = register(any_database, settings)
    owners = [take(any_database, worker).owner for _ in range(9)]
    assert [len(list(turns)) for _, turns in groupby(owners[:6])] == [1] * 6
    assert owners[6:] == ["ann"] * 3


def test_the_base_in_memory_is_taken_up_first(any_database: Database, settings: Settings) -> None:
    cold = submit(any_database, settings, spec=SPEC | {"base": "nano-sdxl"})
    warm = submit(any_database, settings)
    worker = register(any_database, settings)
    with any_database.write() as session:
        (taken,) = claim(session, worker, BASES, resident=["nano-ssd-1b"])
    assert taken.id == warm.id
    assert take(any_database, worker).id == cold.id


@pytest.mark.parametrize(("resident", "comes_first"), [("nano-ssd-1b", "cold"), ("art_1", "mine")])
def test_of_an_artifact_its_own_unet_must_be_in_memory(
    any_database: Database, settings: Settings, resident: str, comes_first: str
) -> None:
    cold = submit(any_database, settings, spec=SPEC | {"base": "nano-sdxl"})
    mine = submit(any_database, settings)
    change(any_database, mine, spec=mine.spec | {"base": "art_1"})
    worker = register(any_database, settings)
    with any_database.write() as session:
        (taken,) = claim(session, worker, BASES, resident=[resident])
    assert taken.id == {"cold": cold, "mine": mine}[comes_first].id


def test_a_job_that_a_device_lost_goes_to_another_one(
    any_database: Database, settings: Settings
) -> None:
    here = register(any_database, settings, device="cpu:1")
    there = register(any_database, settings, device="cpu:2")
    lost = submit(any_database, settings)
    change(any_database, lost, shuns=here.device_id, not_before=now())
    assert not may_claim(any_database, here)
    assert may_claim(any_database, there)
    due = now() - timedelta(seconds=SHUN_SECONDS)
    change(any_database, lost, not_before=due)
    assert may_claim(any_database, here)  # nobody else wanted it


def test_a_device_that_is_shunned_has_the_job_at_last_however_it_came_back(
    any_database: Database, settings: Settings
) -> None:
    here = register(any_database, settings, device="cpu:1")
    there = register(any_database, settings, device="cpu:2")
    lost = submit(any_database, settings)
    change(any_database, lost, shuns=here.device_id)
    job = take(any_database, there)
    with any_database.write() as session:
        Attempt(job.id, job.attempt).give_back(session, "worker_stopped")  # and due at once
    assert not may_claim(any_database, here)
    change(any_database, lost, queued_at=now() - timedelta(seconds=SHUN_SECONDS))
    assert may_claim(any_database, here)


@pytest.mark.parametrize("state", ["drained", "quarantined"])
def test_a_device_that_is_not_open_claims_nothing(
    any_database: Database, settings: Settings, state: str
) -> None:
    submit(any_database, settings)
    worker = register(any_database, settings)
    with any_database.write() as session:
        devices.ensure(session, worker.device_id).state = state
    assert not may_claim(any_database, worker)
    with any_database.write() as session:
        devices.release(session, worker.id)
    assert may_claim(any_database, worker)


def test_what_is_past_its_deadline_is_not_begun_but_goes_on(
    any_database: Database, settings: Settings
) -> None:
    worker, past = register(any_database, settings), now() - timedelta(seconds=1)
    job = submit(any_database, settings, deadline_seconds=60)
    change(any_database, job, expires_at=past)
    assert not may_claim(any_database, worker)
    change(any_database, job, started_at=past)
    assert may_claim(any_database, worker)


def test_a_job_that_waits_for_another_is_in_no_lane(
    any_database: Database, settings: Settings
) -> None:
    first = submit(any_database, settings)
    second = submit(any_database, settings, after=first.id)
    worker = register(any_database, settings)
    assert take(any_database, worker).id == first.id
    assert not may_claim(any_database, worker)
    with any_database.read() as session:
        assert Standing().positions(session, [second]) == {}


def test_a_head_that_somebody_else_just_took_leaves_the_lane_to_us(
    any_database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(any_database, settings)
    second = submit(any_database, settings)
    ours, other = (register(any_database, settings) for _ in range(2))
    heads_of = claim_module._heads

    def taken_meanwhile(*arguments: Any) -> list[Head]:
        heads = heads_of(*arguments)
        with monkeypatch.context() as patch:
            patch.setattr(claim_module, "_heads", heads_of)
            claim(arguments[0], other, BASES)
        return heads

    monkeypatch.setattr(claim_module, "_heads", taken_meanwhile)
    assert take(any_database, ours).id == second.id


def test_a_claim_looks_at_heads_alone(database: Database, settings: Settings) -> None:
    """Through the partial index, in its order, however long a lane is."""
    submit(database, settings)
    worker = register(database, settings)
    asked: list[tuple[str, Any]] = []
    event.listen(
        database.engine,
        "before_cursor_execute",
        lambda _connection, _cursor, statement, values, *_: asked.append((statement, values)),
    )
    take(database, worker)
    looks = [(sql, values) for sql, values in asked if sql.startswith("SELECT") and "waits" in sql]
    assert len(looks) >= 2, "the heads, and the one that is taken"
    with database.engine.connect() as connection:
        for sql, values in looks:
            plan = [
                str(row[-1])
                for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", values)
            ]
            assert any("SEARCH jobs USING INDEX ix_jobs_in_lane (lane=?" in step for step in plan)
            assert not [step for step in plan if "SCAN jobs" in step or "TEMP B-TREE" in step]


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
                jobs = claim(session, worker, BASES)
            if not jobs:
                return taken
            taken += [job.id for job in jobs]

    with ThreadPoolExecutor(num_workers) as pool:
        taken = [job_id for ids in pool.map(take_all, workers) for job_id in ids]
    assert sorted(taken) == sorted(submitted)


def test_a_clock_that_was_set_back_makes_no_job_wait_for_hours(
    any_database: Database, settings: Settings
) -> None:
    job, worker = submit(any_database, settings), register(any_database, settings)
    with any_database.write() as session:
        set_back = update(Job).where(Job.id == job.id).values(not_before=now() + timedelta(hours=2))
        session.execute(set_back)
        assert is_claimable(session, worker, BASES)


def test_a_worker_that_was_given_up_claims_nothing(
    any_database: Database, settings: Settings
) -> None:
    """It was frozen, and has not beaten since. A job of its own would have been nobody's."""
    submit(any_database, settings)
    worker = register(any_database, settings)
    with any_database.write() as session:
        assert workers.forget(session, worker.id, beat=worker.beat)
    with any_database.write() as session:
        assert claim(session, worker, BASES) == []


def test_who_is_given_up_at_a_claim_gives_back_what_it_claimed(
    any_database: Database, settings: Settings
) -> None:
    """Either the claim comes first, and its job is found; or it finds nothing."""
    job = submit(any_database, settings)
    worker = register(any_database, settings)
    reaper = Reaper(any_database, settings)  # whose lock nobody holds: dead
    claimed, buried = threading.Event(), threading.Event()

    def bury() -> None:
        claimed.wait(10)
        reaper.look()
        buried.set()

    with ThreadPoolExecutor(1) as pool:
        burial = pool.submit(bury)
        with any_database.write() as session:
            assert claim(session, worker, BASES) is not None
            claimed.set()
            assert not buried.wait(0.3), "who buries waits for the claim"
        burial.result(10)
    assert history(any_database, job) == ["queued", "running", "queued"]
