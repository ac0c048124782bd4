"""The checker itself: a violation of each promise is planted, and it sees that one."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete, select, update

from core.artifacts import service as artifacts
from core.artifacts.service import StoredFile
from core.artifacts.store import Store
from core.config import Settings
from core.db.engine import Database
from core.db.models import Artifact, Event, Job, JobInput, now
from core.files.digest import sha256_of
from core.ids import new_id
from core.jobs import service as jobs
from core.jobs.attempt import Attempt
from tests.support import jobs as make
from tests.support.invariants import Expected, check

Plant = Callable[["Ended"], Expected]


class Ended:
    """A job that was begun twice and ended well, with one file."""

    def __init__(self, database: Database, settings: Settings, folder: Path) -> None:
        self.database = database
        self.store = Store.of(settings)
        self.settings = settings
        self.worker = make.register(database, settings)
        self.job = make.submit(database, settings)
        lost = make.take(database, self.worker)
        with database.write() as session:
            Attempt(lost.id, 1).give_back(session, "worker_lost")
        taken = make.take(database, self.worker)
        path = folder / "0.png"
        path.write_bytes(b"a picture")
        self.key = f"jobs/{taken.id}/2/{new_id('art')}/0.png"
        self.store.put_file(self.key, path)
        with database.write() as session:
            artifact = artifacts.record(
                session,
                owner=taken.owner,
                job_id=taken.id,
                kind="image",
                role="image",
                name="0.png",
                format="png",
                files=[StoredFile("0.png", 9, sha256_of(path), self.key)],
            )
            Attempt(taken.id, 2).succeed(session, {"images": [artifact.id]})
        self.expected = Expected(accepted=[self.job.id])

    def change(self, **values: object) -> None:
        with self.database.write() as session:
            session.execute(update(Job).where(Job.id == self.job.id).values(**values))

    def tell(self, kind: str, attempt: int, **data: object) -> None:
        """An event that nobody should have written."""
        with self.database.write() as session:
            job = session.get_one(Job, self.job.id)
            job.last_seq += 1
            row = Event(job_id=job.id, seq=job.last_seq, type=kind, attempt=attempt, data=data)
            session.add(row)


@pytest.fixture
def ended(any_database: Database, settings: Settings, tmp_path: Path) -> Ended:
    return Ended(any_database, settings, tmp_path)


def not_ended(ended: Ended) -> Expected:
    ended.change(state="paused")
    return ended.expected


def ended_twice(ended: Ended) -> Expected:
    ended.tell("state", 2, state="failed")
    return ended.expected


def other_bytes(ended: Ended) -> Expected:
    ended.store.put_bytes(ended.key, b"a drawing")
    return ended.expected


def no_file(ended: Ended) -> Expected:
    ended.store.delete(ended.key)
    return ended.expected


def half_a_checkpoint(ended: Ended) -> Expected:
    file = {"path": "s", "bytes": 99, "sha256": "0" * 64, "store_key": ended.key}
    ended.change(checkpoints=[{"step": 1, "files": [file]}])
    return ended.expected


def a_late_writer(ended: Ended) -> Expected:
    ended.tell("progress", 1, step=1)
    return ended.expected


def an_attempt_out_of_nothing(ended: Ended) -> Expected:
    ended.change(attempt=3)
    return ended.expected


def many_steps_lost(ended: Ended) -> Expected:
    ended.change(kind="fine_tune")
    ended.tell("progress", 2, step=30)
    ended.tell("log", 2, message="going on from step 10")
    return Expected(accepted=[ended.job.id], checkpoint_steps=10)


def a_device_for_two(ended: Ended) -> Expected:
    other = make.submit(ended.database, ended.settings)
    make.take(ended.database, ended.worker)
    with ended.database.write() as session:
        Attempt(other.id, 1).cancel(session)
        moved = Event.job_id == other.id
        session.execute(update(Event).where(moved).values(at=now() - timedelta(hours=1)))
        last = update(Event).where(moved, Event.seq == 3)
        session.execute(last.values(at=now() + timedelta(hours=1)))
    return Expected(accepted=[ended.job.id, other.id], cancelled=[other.id])


def batches_that_meet(ended: Ended) -> Expected:
    """Two batches on one device, one inside the other."""
    expected = a_device_for_two(ended)
    with ended.database.write() as session:
        for event in session.scalars(select(Event).where(Event.type == "state")):
            if event.data["state"] == "running":
                event.data = event.data | {"batch": event.job_id[-8:]}
    return expected


def a_training_in_a_batch(ended: Ended) -> Expected:
    ended.change(kind="fine_tune")
    with ended.database.write() as session:
        for event in session.scalars(select(Event).where(Event.type == "state")):
            event.data = event.data | {"batch": "b"}
    return ended.expected


def still_running(ended: Ended) -> Expected:
    ended.change(state="running")
    return ended.expected


def failed(ended: Ended) -> Expected:
    ended.change(state="failed", error={"code": "x", "detail": "y"})
    return ended.expected


def forgotten(ended: Ended) -> Expected:
    with ended.database.write() as session:
        for table in (Artifact, Event, JobInput):
            session.execute(delete(table).where(table.job_id == ended.job.id))
        session.execute(delete(Job).where(Job.id == ended.job.id))
    return ended.expected


def made_twice(ended: Ended) -> Expected:
    twin = make.submit(ended.database, ended.settings)
    with ended.database.write() as session:
        jobs.cancel(session, twin.owner, twin.id)
    return Expected(accepted=[ended.job.id], cancelled=[twin.id])


def slow(ended: Ended) -> Expected:
    return Expected(accepted=[ended.job.id], recoveries_seconds=[0.5, 3.5], recovery_seconds=3.0)


def test_drawings_of_one_batch_may_run_at_once(ended: Ended) -> None:
    expected = a_device_for_two(ended)
    with ended.database.write() as session:
        for event in session.scalars(select(Event).where(Event.type == "state")):
            if event.data["state"] == "running":
                event.data = event.data | {"batch": "b"}
    assert check(ended.database, ended.store, expected) == []


def test_a_job_that_ended_well_violates_nothing(ended: Ended) -> None:
    assert check(ended.database, ended.store, ended.expected) == []


@pytest.mark.parametrize(
    ("plant", "name"),
    [
        (not_ended, "I1"),
        (ended_twice, "I1"),
        (other_bytes, "I2"),
        (no_file, "I3"),
        (half_a_checkpoint, "I3"),
        (a_late_writer, "I4"),
        (an_attempt_out_of_nothing, "I4"),
        (many_steps_lost, "I5"),
        (a_device_for_two, "I6"),
        (batches_that_meet, "I6"),
        (a_training_in_a_batch, "I6"),
        (still_running, "I7"),
        (failed, "I8"),
        (forgotten, "I9"),
        (made_twice, "I9"),
        (slow, "I10"),
    ],
)
def test_a_planted_violation_is_seen(plant: Plant, name: str, ended: Ended) -> None:
    expected = plant(ended)
    found = check(ended.database, ended.store, expected)
    assert name in {sentence.partition(":")[0] for sentence in found}, found
