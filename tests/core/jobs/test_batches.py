"""What a claim takes along: drawings that share batches, as many as there is room for."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from core.config import Settings
from core.db.engine import Database
from core.db.models import Job, Worker, now
from core.jobs import batches
from core.jobs import service as jobs
from core.jobs.claim import claim
from core.jobs.transition import events_after
from core.specs import GenerateSpec
from core.workers import devices
from core.workers.chip import Chip
from tests.core.jobs.test_service import fine_tune, make_dataset
from tests.support.jobs import (
    BASES,
    SPEC,
    beat,
    change,
    history,
    register,
    reread,
    submit,
    succeed,
)


def draw(database: Database, settings: Settings, *, owner: str = "ada", **fields: Any) -> Job:
    return submit(database, settings, owner=owner, spec=SPEC | fields, has_company=True)


def take(database: Database, worker: Worker) -> list[str]:
    with database.write() as session:
        return [job.id for job in claim(session, worker, BASES)]


def test_compatible_drawings_of_all_owners_are_taken_together(
    any_database: Database, settings: Settings
) -> None:
    together = [
        draw(any_database, settings, prompt="a cat", seed=3),
        draw(any_database, settings, owner="bob", negative_prompt="blurry", guidance=7.0),
        draw(any_database, settings, format="webp"),
    ]
    apart = [
        draw(any_database, settings, **fields)
        for fields in (
            {"width": 96},
            {"steps": 5},
            {"scheduler": "ddim"},
            {"guidance": 1.0},
            {"precision": "bf16"},
            {"base": "nano-sdxl"},
        )
    ]
    worker = register(any_database, settings)
    assert sorted(take(any_database, worker)) == sorted(job.id for job in together)
    taken = [take(any_database, worker) for _ in apart]
    assert sorted(taken) == sorted([job.id] for job in apart)
    assert take(any_database, worker) == []


def test_each_has_an_attempt_of_its_own_and_a_batch_that_names_no_other(
    any_database: Database, settings: Settings
) -> None:
    submitted = [draw(any_database, settings, owner=owner) for owner in ("ada", "bob")]
    worker = register(any_database, settings)
    take(any_database, worker)
    told = set()
    for job in submitted:
        row = reread(any_database, job)
        assert (row.state, row.attempt, row.worker_id) == ("running", 1, worker.id)
        assert history(any_database, job) == ["queued", "running"]
        with any_database.read() as session:
            (event,) = [
                event
                for event in events_after(session, job.id, 0, 9)
                if event.data.get("state") == "running"
            ]
        told.add(event.data["batch"])
        assert not any(other.id in str(event.data) for other in submitted)
    assert len(told) == 1


def test_pictures_are_counted_and_not_jobs(
    any_database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "MAX_ROWS", 8)
    sizes = [3, 4, 2, 1]
    submitted = [draw(any_database, settings, images=images) for images in sizes]
    worker = register(any_database, settings)
    assert take(any_database, worker) == [submitted[0].id, submitted[1].id]
    assert take(any_database, worker) == [submitted[2].id, submitted[3].id]


def test_what_is_larger_than_a_batch_is_alone(any_database: Database, settings: Settings) -> None:
    large = draw(any_database, settings, prompt=["a", "b"], images=16)
    draw(any_database, settings)
    assert take(any_database, register(any_database, settings)) == [large.id]


def test_a_small_device_takes_fewer(any_database: Database, settings: Settings) -> None:
    """Its runner tells how small it is long after the worker has signed on."""
    submitted = [draw(any_database, settings) for _ in range(5)]
    worker = register(any_database, settings)
    beat(any_database, worker, Chip("small", int(2.5 * 2.5 * submitted[0].row_bytes)))
    assert submitted[0].row_bytes > 0
    assert len(take(any_database, worker)) == 2
    beat(any_database, worker, Chip("smaller", 1))
    assert len(take(any_database, worker)) == 1


def test_devices_that_have_nothing_to_do_get_their_share(
    any_database: Database, settings: Settings
) -> None:
    for _ in range(7):
        draw(any_database, settings)
    first, second, third = (
        register(any_database, settings, device=f"cpu:{number}") for number in range(3)
    )
    register(any_database, settings, device="cpu:3", role="train")
    with any_database.write() as session:
        devices.drain(session, third.id)
    assert [len(take(any_database, worker)) for worker in (first, second)] == [4, 3]


def test_idle_devices_divide_all_that_waits(
    any_database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not just what one of them has room for."""
    monkeypatch.setattr(batches, "MAX_ROWS", 4)
    for _ in range(14):
        draw(any_database, settings)
    idle = [register(any_database, settings, device=f"cpu:{number}") for number in range(4)]
    assert [len(take(any_database, worker)) for worker in idle] == [4, 4, 3, 3]


def test_the_time_of_a_batch_is_divided_by_pictures(
    any_database: Database, settings: Settings
) -> None:
    three, one = draw(any_database, settings, images=3), draw(any_database, settings)
    worker = register(any_database, settings)
    take(any_database, worker)
    for job in (three, one):
        change(any_database, job, claimed_at=now() - timedelta(seconds=80))
        succeed(any_database, reread(any_database, job))
    assert reread(any_database, three).device_seconds == pytest.approx(60, abs=5)
    assert reread(any_database, one).device_seconds == pytest.approx(20, abs=5)
    alone = draw(any_database, settings)
    take(any_database, worker)
    assert reread(any_database, alone).device_share == 1


def test_who_may_not_be_begun_is_not_taken_along(
    any_database: Database, settings: Settings
) -> None:
    first = draw(any_database, settings)
    paused, late, pausing, waiting, gone = (draw(any_database, settings) for _ in range(5))
    worker = register(any_database, settings)
    change(any_database, late, expires_at=now() - timedelta(seconds=1))
    change(any_database, pausing, not_before=now() + timedelta(seconds=60))
    change(any_database, waiting, waits=1)
    with any_database.write() as session:
        jobs.pause(session, "ada", paused.id)
        jobs.cancel(session, "ada", gone.id)
    assert take(any_database, worker) == [first.id]


def test_a_training_has_no_company(any_database: Database, settings: Settings) -> None:
    spec = fine_tune(make_dataset(any_database, 1))
    for _ in range(2):
        submit(any_database, settings, kind="fine_tune", spec=spec, has_company=True)
    assert len(take(any_database, register(any_database, settings))) == 1


def test_several_workers_take_each_job_once(any_database: Database, settings: Settings) -> None:
    submitted = {draw(any_database, settings).id for _ in range(40)}
    workers = [register(any_database, settings, device=f"cpu:{number}") for number in range(4)]

    def take_all(worker: Worker) -> list[str]:
        taken: list[str] = []
        while some := take(any_database, worker):
            taken += some
        return taken

    with ThreadPoolExecutor(4) as pool:
        taken = Counter(job_id for ids in pool.map(take_all, workers) for job_id in ids)
    assert set(taken) == submitted
    assert max(taken.values()) == 1


def test_a_key_names_all_that_a_batch_has_in_common() -> None:
    """A new field of the spec must be thought of here."""
    varies = {"prompt", "negative_prompt", "loras", "images", "seed", "format"}
    common = {"base", "steps", "guidance", "scheduler", "width", "height", "image", "precision"}
    assert set(GenerateSpec.model_fields) == varies | common
