"""What is taken away with time, and what stays because somebody needs it."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from core import retention
from core.artifacts import service as artifacts
from core.artifacts.service import StoredFile
from core.artifacts.store import Store
from core.config import Settings
from core.db.engine import Database
from core.db.models import Artifact, Base, Event, Job, JobInput, JobLog, Lane, Worker, now
from core.errors import NotFound
from core.jobs import logs
from core.jobs import service as jobs
from core.jobs.attempt import Attempt
from core.jobs.removal import forget
from core.retention import LIGHT, SWEPT, Retention
from tests.core.jobs.test_service import fine_tune, make_dataset
from tests.support.jobs import SPEC, change, fail, register, reread, submit, succeed, take

DAY = timedelta(days=1)


@pytest.fixture
def store(settings: Settings) -> Store:
    return Store.of(settings)


@pytest.fixture
def worker(any_database: Database, settings: Settings) -> Worker:
    return register(any_database, settings)


def look(database: Database, settings: Settings, **changes: Any) -> None:
    Retention(database, Store.of(settings), settings.model_copy(update=changes)).look()


def put(store: Store, job: Job, attempt: int, name: str) -> dict[str, Any]:
    """A file that an attempt stored."""
    key = f"jobs/{job.id}/{attempt}/{name}/file"
    store.put_bytes(key, b"x")
    return {"path": "file", "bytes": 1, "sha256": "0" * 64, "store_key": key}


def is_kept(store: Store, file: dict[str, Any]) -> bool:
    try:
        return store.size(file["store_key"]) > 0
    except NotFound:
        return False


def train(database: Database, settings: Settings, worker: Worker, store: Store) -> Job:
    """A training that runs and has saved step 3."""
    spec = fine_tune(make_dataset(database, 1))
    submit(database, settings, kind="fine_tune", spec=spec)
    job = take(database, worker)
    saved = [{"step": 3, "files": [put(store, job, 1, "saved")]}]
    with database.write() as session:
        Attempt(job.id, 1).tell(session, "log", {"message": "saved"}, checkpoints=saved)
        logs.keep(session, job.id, ["a line"])
    return reread(database, job)


def make_lora(database: Database, store: Store, job: Job) -> Artifact:
    file = put(store, job, 1, "lora")
    with database.write() as session:
        return artifacts.record(
            session,
            owner=job.owner,
            job_id=job.id,
            kind="lora",
            role="lora",
            name="lora",
            format="peft",
            files=[StoredFile(**file)],
            base="nano-ssd-1b",
            layout="ssd-1b",
            facts={"rank": 8},
        )


def age(database: Database, job: Job, by: timedelta) -> None:
    change(database, job, finished_at=now() - by)


def rows_of(database: Database, job: Job) -> int:
    with database.read() as session:
        return sum(
            session.scalar(select(func.count()).where(table.job_id == job.id)) or 0
            for table in (Artifact, Event, JobInput, JobLog)
        )


def test_files_of_lost_attempts_go_after_two_leases(
    any_database: Database, settings: Settings, worker: Worker, store: Store
) -> None:
    job = train(any_database, settings, worker, store)
    lora, lost = make_lora(any_database, store, job), put(store, job, 1, "lost")
    succeed(any_database, job, lora=lora.id)
    age(any_database, job, timedelta(seconds=2 * settings.lease_seconds - 5))
    look(any_database, settings)
    assert is_kept(store, lost)  # its worker may not know yet that it lost the job
    age(any_database, job, timedelta(seconds=2 * settings.lease_seconds + 1))
    look(any_database, settings)
    assert not is_kept(store, lost)
    assert is_kept(store, lora.files[0])
    assert is_kept(store, job.checkpoints[0]["files"][0])
    assert reread(any_database, job).swept == SWEPT


def test_nothing_of_a_job_that_goes_on_is_swept(
    any_database: Database, settings: Settings, worker: Worker, store: Store
) -> None:
    job = train(any_database, settings, worker, store)
    file = put(store, job, 1, "not named yet")
    look(any_database, settings, keep_jobs_days=1.0)
    assert is_kept(store, file)


def test_checkpoints_of_ended_jobs_go_with_time(
    any_database: Database, settings: Settings, worker: Worker, store: Store
) -> None:
    job = train(any_database, settings, worker, store)
    lora, saved = make_lora(any_database, store, job), job.checkpoints[0]["files"][0]
    succeed(any_database, job, lora=lora.id)
    age(any_database, job, 6 * DAY)
    look(any_database, settings)
    assert is_kept(store, saved)
    age(any_database, job, 8 * DAY)
    look(any_database, settings, keep_checkpoints_days=None)
    assert is_kept(store, saved)
    look(any_database, settings)
    assert not is_kept(store, saved)
    assert is_kept(store, lora.files[0])
    light = reread(any_database, job)
    assert (light.checkpoints, light.swept) == ([], LIGHT)


def test_a_checkpoint_stays_for_those_that_go_on_from_it(
    any_database: Database, settings: Settings, worker: Worker, store: Store
) -> None:
    """And for those that went on from it and saved nothing, as long as they may be retried."""
    job = train(any_database, settings, worker, store)
    saved = job.checkpoints[0]["files"][0]
    fail(any_database, job)
    age(any_database, job, 8 * DAY)
    with any_database.write() as session:
        jobs.retry(session, settings, "ada", job.id)
    look(any_database, settings)
    assert is_kept(store, saved)
    second = fail(any_database, take(any_database, worker))
    with any_database.write() as session:
        third = jobs.retry(session, settings, "ada", second.id)
    look(any_database, settings)
    assert is_kept(store, saved)
    with any_database.write() as session:
        jobs.cancel(session, "ada", third.id)
    look(any_database, settings)
    assert is_kept(store, saved)
    for follower in (second, third):
        age(any_database, follower, 8 * DAY)
    for _ in range(3):  # sweeps the two, drops what they hold, then what it was lent from
        look(any_database, settings)
    assert reread(any_database, third).checkpoints == []
    assert not is_kept(store, saved)


def test_old_jobs_are_forgotten_with_all_that_they_made(
    any_database: Database, settings: Settings, worker: Worker, store: Store
) -> None:
    job = train(any_database, settings, worker, store)
    lora = make_lora(any_database, store, job)
    succeed(any_database, job, lora=lora.id)
    young = submit(any_database, settings)
    succeed(any_database, take(any_database, worker))
    age(any_database, job, 31 * DAY)
    look(any_database, settings)
    assert rows_of(any_database, job) > 3  # for ever, unless told otherwise
    look(any_database, settings, keep_jobs_days=30.0)
    with any_database.read() as session:
        assert session.get(Job, job.id) is None
        assert list(session.scalars(select(Lane.id))) == [young.lane]
    assert rows_of(any_database, job) == 0
    assert not is_kept(store, lora.files[0])
    assert reread(any_database, young).state == "succeeded"


def test_what_another_job_needs_stays(
    any_database: Database, settings: Settings, worker: Worker, store: Store
) -> None:
    first = train(any_database, settings, worker, store)
    lora = make_lora(any_database, store, first)
    succeed(any_database, first, lora=lora.id)
    second = train(any_database, settings, worker, store)
    made = make_lora(any_database, store, second)
    succeed(any_database, second, lora=made.id)
    by_artifact = submit(any_database, settings, spec=SPEC | {"loras": [{"artifact": lora.id}]})
    by_job = submit(any_database, settings, spec=SPEC | {"loras": [{"job": second.id}]})
    for job in (first, second):
        age(any_database, job, 31 * DAY)
    look(any_database, settings, keep_jobs_days=30.0)
    assert is_kept(store, lora.files[0])
    assert is_kept(store, made.files[0])
    for job in (by_artifact, by_job):
        with any_database.write() as session:
            jobs.cancel(session, "ada", job.id)
    look(any_database, settings, keep_jobs_days=30.0)
    assert not is_kept(store, lora.files[0])
    assert not is_kept(store, made.files[0])


def test_a_job_that_has_not_ended_is_not_forgotten(
    any_database: Database, settings: Settings
) -> None:
    job = submit(any_database, settings)
    with any_database.write() as session:
        assert not forget(session, job.id)
        assert not forget(session, "job_no")
    assert reread(any_database, job).state == "queued"


def test_a_look_takes_away_all_there_is_and_nobody_who_stays_is_in_the_way(
    any_database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_AT_ONCE", 2)
    needed = [submit(any_database, settings) for _ in range(3)]
    worker = register(any_database, settings)
    for job in needed:
        submit(any_database, settings, after=job.id)
        succeed(any_database, take(any_database, worker))
        age(any_database, job, 32 * DAY)
    ended = [submit(any_database, settings) for _ in range(5)]
    for job in ended:
        with any_database.write() as session:
            jobs.cancel(session, "ada", job.id)
        age(any_database, job, 31 * DAY)
    look(any_database, settings, keep_jobs_days=30.0)
    with any_database.read() as session:
        kept = set(session.scalars(select(Job.id)))
    assert kept >= {job.id for job in needed}
    assert kept.isdisjoint(job.id for job in ended)


LOOK = """
import sys
from core.artifacts.store import Store
from core.config import Settings
from core.db.engine import Database
from core.retention import Retention

settings = Settings(keep_checkpoints_days=1.0, keep_jobs_days=float(sys.argv[1]))
Retention(Database.of(settings), Store.of(settings), settings).look()
"""


@pytest.mark.parametrize("label", ["swept", "checkpoints dropped", "jobs forgotten"])
def test_whoever_dies_at_a_look_leaves_nothing_behind(
    label: str,
    any_database: Database,
    settings: Settings,
    worker: Worker,
    store: Store,
    tmp_path: Path,
) -> None:
    job = train(any_database, settings, worker, store)
    lora, lost = make_lora(any_database, store, job), put(store, job, 1, "lost")
    saved = job.checkpoints[0]["files"][0]
    succeed(any_database, job, lora=lora.id)
    age(any_database, job, 2 * DAY)
    forgets = label == "jobs forgotten"
    environment = os.environ | {
        "STILLROOM_HOME": str(settings.root),
        "STILLROOM_DATABASE_URL": any_database.engine.url.render_as_string(hide_password=False),
        "STILLROOM_CRASH_AT": f"retention: {label}",
        "STILLROOM_CRASH_MARK": str(tmp_path / "mark"),
    }
    for code in (137, 0, 0):
        command = [sys.executable, "-c", LOOK, "1" if forgets else "30"]
        ended = subprocess.run(command, env=environment, check=False, capture_output=True)
        assert ended.returncode == code, ended.stderr.decode()
    assert not is_kept(store, lost)
    assert not is_kept(store, saved)
    assert is_kept(store, lora.files[0]) != forgets
    if not forgets:
        assert reread(any_database, job).checkpoints == []


def test_every_table_that_names_a_job_is_seen_to() -> None:
    naming = {
        table.name
        for table in Base.metadata.sorted_tables
        if any(key.column.table.name == "jobs" for key in table.foreign_keys)
    }
    assert naming == {"artifacts", "events", "job_inputs", "job_logs"}
