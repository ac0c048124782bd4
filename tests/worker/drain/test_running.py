"""What a job is and leaves: ends, failures, attempts that lost their lease."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.artifacts import service as artifacts
from core.artifacts.store import Store
from core.config import Settings
from core.db.engine import Database
from core.db.models import Job, Rate, Worker
from core.errors import NotFound, Unavailable
from core.jobs.attempt import Attempt
from tests.support import jobs as make
from tests.support.log_lines import json_lines
from tests.worker.drain.scene import Play, running
from worker import inputs
from worker.drain import Drain
from worker.link import Link
from worker.record import Record
from worker.tail import Tail


def test_it_runs_what_there_is_and_comes_back(
    drain: Drain, play: Play, look: Callable[[Job], Job], database: Database, settings: Settings
) -> None:
    played = [play("draw"), play("draw")]
    drain.until_empty()
    for job in map(look, played):
        assert (job.state, job.attempt, job.progress["step"]) == ("succeeded", 1, 3)
        assert job.result is not None
        with database.read() as session:
            (image,) = artifacts.list_made_by(session, job.id)[0]
        assert job.result == {"images": [image.id]}
        assert Store.of(settings).read(image.files[0]["store_key"]) == b"a picture"
    assert not list(settings.scratch_path.glob("*/*"))


def test_a_failure_is_the_jobs_and_the_next_one_runs(
    drain: Drain, play: Play, look: Callable[[Job], Job]
) -> None:
    bad, good = play("fail"), play("draw")
    drain.until_empty()
    assert look(bad).error == {"code": "odd", "detail": "It was told to."}
    assert look(good).state == "succeeded"


def test_what_a_job_took_is_remembered_for_dry_runs(
    drain: Drain, play: Play, database: Database
) -> None:
    play("draw")
    drain.until_empty()
    with database.read() as session:
        (rate,) = session.query(Rate)
    assert (rate.chip, rate.kind, rate.base) == ("cpu", "generate", "nano-ssd-1b")
    assert 0 < rate.seconds_per_step < 5


def test_a_store_that_is_away_costs_no_attempt(
    drain: Drain, play: Play, look: Callable[[Job], Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = play("draw")
    lay_out, refusals = inputs.lay_out, iter(range(2))

    def away_at_first(*arguments: Any) -> Any:
        if next(refusals, None) is not None:
            raise Unavailable("The store does not answer.")
        return lay_out(*arguments)

    monkeypatch.setattr(inputs, "lay_out", away_at_first)
    monkeypatch.setattr("worker.turn._AWAY_SECONDS", 0.01)
    drain.until_empty()
    assert (look(job).state, look(job).attempt) == ("succeeded", 1)


def test_what_could_not_be_laid_out_leaves_nothing_while_it_is_tried_again(
    drain: Drain, play: Play, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    play("draw")
    lay_out, refusals = inputs.lay_out, iter(range(3))
    held: list[int] = []

    def away_at_first(*arguments: Any) -> Any:
        held.append(len(list(settings.scratch_path.glob("*/*"))))
        run = lay_out(*arguments)
        if next(refusals, None) is not None:
            raise Unavailable("The store does not answer.")
        return run

    monkeypatch.setattr(inputs, "lay_out", away_at_first)
    monkeypatch.setattr("worker.turn._AWAY_SECONDS", 0.01)
    drain.until_empty()
    assert held == [1, 1, 1, 1]
    assert not list(settings.scratch_path.glob("*/*"))


def test_a_worker_that_ends_while_the_database_is_away_pauses_between_its_tries(
    drain: Drain, play: Play, look: Callable[[Job], Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = play("long")
    thread = running(drain, look, job)
    give_back, tries = Record.give_back, list[float]()

    def away_for_a_second(*arguments: Any, **values: Any) -> None:
        tries.append(time.monotonic())
        if time.monotonic() - tries[0] < 1.0:
            raise Unavailable("The database does not answer.")
        give_back(*arguments, **values)

    monkeypatch.setattr(Record, "give_back", away_for_a_second)
    monkeypatch.setattr("worker.turn._AWAY_SECONDS", 0.25)
    drain.stop()
    thread.join(60)
    assert look(job).state == "queued"
    assert 2 <= len(tries) <= 5


def test_our_own_errors_fail_the_job_and_not_the_worker(
    drain: Drain,
    play: Play,
    look: Callable[[Job], Job],
    link: Link,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bad = play("draw")

    def break_down(*_: Any) -> Any:
        raise ValueError("a secret of ours")

    with monkeypatch.context() as patch:
        patch.setattr(inputs, "lay_out", break_down)
        drain.until_empty()
    error = look(bad).error
    assert error is not None
    assert error["code"] == "internal_error"
    assert "a secret" not in error["detail"]
    assert link.ready.wait(30)
    good = play("draw")
    drain.until_empty()
    assert look(good).state == "succeeded"


def test_an_attempt_that_lost_its_lease_ends_and_writes_nothing(
    drain: Drain, play: Play, look: Callable[[Job], Job], database: Database, settings: Settings
) -> None:
    job = play("long")
    thread = running(drain, look, job)
    with database.write() as session:
        Attempt(job.id, 1).give_back(session, "worker_lost")
    other = make.register(database, settings)
    taken = make.take(database, other)
    thread.join(60)
    assert not thread.is_alive()
    again = look(job)
    assert (taken.id, again.state, again.attempt, again.worker_id) == (
        job.id,
        "running",
        2,
        other.id,
    )


def test_an_attempt_that_wakes_up_late_leaves_the_files_of_the_next(
    play: Play,
    database: Database,
    settings: Settings,
    worker: Worker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    play("draw")
    store = Store.of(settings)
    path = tmp_path / "0.png"
    path.write_bytes(b"a picture")

    def record_of(job: Job) -> Record:
        return Record(job, database, store, settings, worker=worker, chip=None, tail=Tail())

    def put_and_lose() -> str:
        job = make.take(database, worker)
        (file,) = record_of(job).put(path)
        with database.write() as session:
            Attempt(job.id, job.attempt).give_back(session, "worker_lost")
        return file.store_key

    first = put_and_lose()
    second = make.take(database, worker)
    third: list[str] = []
    delete_prefix = Store.delete_prefix

    def frozen_before_it_deletes(store: Store, prefix: str, **options: Any) -> None:
        with database.write() as session:
            Attempt(second.id, second.attempt).give_back(session, "worker_lost")
        third.append(put_and_lose())
        delete_prefix(store, prefix, **options)

    monkeypatch.setattr(Store, "delete_prefix", frozen_before_it_deletes)
    record_of(second).begin()
    assert store.read(third[0]) == b"a picture"
    with pytest.raises(NotFound):
        store.read(first)


def test_a_database_of_another_version_is_not_claimed_from(
    drain: Drain, play: Play, look: Callable[[Job], Job], caplog: pytest.LogCaptureFixture
) -> None:
    job = play("draw")
    drain._revision = "0004"
    drain.until_empty()
    assert (look(job).state, look(job).attempt) == ("queued", 0)
    assert "this process of revision 0004: end it" in caplog.text


def test_log_lines_about_a_job_name_the_request_that_made_it(
    drain: Drain, database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make.SPEC | {"prompt": "draw"}
    job = make.submit(database, settings, spec=spec, request_id="order-66")
    other = make.submit(database, settings, spec=spec)
    told: list[str | None] = []
    lay_out, refusals = inputs.lay_out, {job.id, other.id}

    def away_at_first(needed: Any, job: Job, *others: Any) -> Any:
        if job.id in refusals:
            refusals.remove(job.id)
            raise Unavailable("The store does not answer.")
        run = lay_out(needed, job, *others)
        told.append(run.request_id)
        return run

    monkeypatch.setattr(inputs, "lay_out", away_at_first)
    with json_lines() as lines:
        drain.until_empty()
    waiting = [line for line in lines() if line["message"].startswith("waiting")]
    assert [(line["job"], line.get("request_id")) for line in waiting] == [
        (job.id, "order-66"),
        (other.id, None),
    ]
    assert told == ["order-66", None]
    assert "request_id" not in waiting[1]


def test_a_worker_keeps_an_owners_limit(
    drain: Drain, play: Play, look: Callable[[Job], Job], database: Database, settings: Settings
) -> None:
    play("draw")
    make.take(database, make.register(database, settings, device="cuda:0"))
    job = play("draw")
    drain.settings = settings.model_copy(update={"max_running_jobs": 1})
    drain.until_empty()
    assert (look(job).state, look(job).attempt) == ("queued", 0)
    drain.settings = settings.model_copy(update={"max_running_jobs": 2})
    drain.until_empty()
    assert look(job).state == "succeeded"
