"""Lanes: made by the first job, shared by those that differ in age alone, gone with the last."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import select

from core.config import Settings
from core.db.engine import Database
from core.db.models import Job, Lane
from core.jobs import lanes
from core.jobs.removal import forget
from tests.core.jobs.test_service import fine_tune, make_dataset
from tests.support.databases import postgres_database
from tests.support.jobs import SPEC, register, submit, succeed, take


def lanes_of(database: Database) -> set[str]:
    with database.read() as session:
        return set(session.scalars(select(Lane.id)))


def drop_job(database: Database, job: Job) -> None:
    with database.write() as session:
        assert forget(session, job.id)


@pytest.mark.parametrize(
    "fields", [{"owner": "bob"}, {"priority": 1}, {"spec": SPEC | {"base": "nano-sdxl"}}]
)
def test_jobs_that_differ_in_more_than_age_are_in_lanes_of_their_own(
    any_database: Database, settings: Settings, fields: dict[str, Any]
) -> None:
    first, second = submit(any_database, settings), submit(any_database, settings)
    other = submit(any_database, settings, **fields)
    assert first.lane == second.lane != other.lane
    assert lanes_of(any_database) == {first.lane, other.lane}


def test_trainings_are_in_another_lane_than_pictures(
    any_database: Database, settings: Settings
) -> None:
    spec = fine_tune(make_dataset(any_database, 1))
    training = submit(any_database, settings, kind="fine_tune", spec=spec)
    assert submit(any_database, settings).lane != training.lane


def test_many_first_jobs_of_a_lane_at_once_make_it_once(
    any_database: Database, settings: Settings
) -> None:
    with ThreadPoolExecutor(4) as pool:
        jobs = list(pool.map(lambda _: submit(any_database, settings), range(8)))
    assert lanes_of(any_database) == {job.lane for job in jobs}
    assert len(lanes_of(any_database)) == 1


def test_an_empty_lane_goes_and_comes_back(any_database: Database, settings: Settings) -> None:
    worker = register(any_database, settings)
    ended, waiting = submit(any_database, settings), submit(any_database, settings, priority=-1)
    succeed(any_database, take(any_database, worker))
    drop_job(any_database, ended)
    with any_database.write() as session:
        lanes.forget_empty(session)
    assert lanes_of(any_database) == {waiting.lane}
    again = submit(any_database, settings)
    assert again.lane == ended.lane
    assert take(any_database, worker).id == again.id


def test_a_lane_that_somebody_is_entering_stays(settings: Settings) -> None:
    """On SQLite one writes at a time."""
    with postgres_database() as database:
        worker = register(database, settings)
        ended = submit(database, settings)
        succeed(database, take(database, worker))
        drop_job(database, ended)
        with database.write() as session:
            entered = Job(
                **{
                    column.key: getattr(ended, column.key)
                    for column in Job.__table__.columns
                    if column.key != "started_at"
                }
            )
            entered.state = "queued"
            lanes.enter(session, entered)
            forgetting = threading.Thread(target=forget_empty, args=(database,))
            forgetting.start()
            forgetting.join(0.5)  # it has looked, or waits to
            session.add(entered)
        forgetting.join(10)
        assert lanes_of(database) == {ended.lane}
        assert take(database, worker).id == entered.id


def forget_empty(database: Database) -> None:
    with database.write() as session:
        lanes.forget_empty(session)
