"""An artifact goes when it is told to or its time has come, unless a job needs it."""

from datetime import timedelta

import pytest
from sqlalchemy import select

from core.artifacts import removal, service
from core.artifacts.store import Store
from core.config import Settings
from core.db.engine import Database
from core.db.models import Artifact, Deletion, Worker, now
from core.errors import InUse, NotFound, Unprocessable
from core.jobs import service as jobs
from tests.core.test_retention import look, make_lora, store, train, worker
from tests.support.jobs import SPEC, submit, succeed

__all__ = ["store", "worker"]


@pytest.fixture
def lora(any_database: Database, settings: Settings, worker: Worker, store: Store) -> Artifact:
    """Of a training that has succeeded."""
    job = train(any_database, settings, worker, store)
    made = make_lora(any_database, store, job)
    succeed(any_database, job, lora=made.id)
    return made


def remove(database: Database, artifact: Artifact, owner: str = "ada") -> None:
    with database.write() as session:
        removal.remove(session, owner, artifact.id)


def is_there(database: Database, artifact: Artifact) -> bool:
    with database.read() as session:
        return session.get(Artifact, artifact.id) is not None


def expire(database: Database, artifact: Artifact, after: timedelta) -> None:
    with database.write() as session:
        session.get_one(Artifact, artifact.id).expires_at = now() + after


def test_it_goes_with_its_files(any_database: Database, lora: Artifact) -> None:
    with pytest.raises(NotFound):
        remove(any_database, lora, owner="bob")
    remove(any_database, lora)
    assert not is_there(any_database, lora)
    with any_database.read() as session:
        assert list(session.scalars(select(Deletion.prefix))) == [lora.files[0]["store_key"]]
    with pytest.raises(NotFound):
        remove(any_database, lora)


def test_it_stays_while_a_job_reads_it(
    any_database: Database, settings: Settings, lora: Artifact
) -> None:
    by_id = submit(any_database, settings, spec=SPEC | {"loras": [{"artifact": lora.id}]})
    by_job = submit(any_database, settings, spec=SPEC | {"loras": [{"job": lora.job_id}]})
    for job in (by_id, by_job):
        with pytest.raises(InUse, match=f"'{job.id}' \\(queued\\) needs artifact {lora.id}"):
            remove(any_database, lora)
        with any_database.write() as session:
            jobs.cancel(session, "ada", job.id)
    submit(any_database, settings, after=lora.job_id)  # which reads nothing of it
    remove(any_database, lora)


def test_it_stays_while_its_job_runs(
    any_database: Database, settings: Settings, worker: Worker, store: Store
) -> None:
    job = train(any_database, settings, worker, store)
    made = make_lora(any_database, store, job)
    with pytest.raises(InUse, match=f"'{job.id}' \\(running\\)"):
        remove(any_database, made)


def test_a_job_cannot_begin_to_need_what_is_gone(
    any_database: Database, settings: Settings, lora: Artifact
) -> None:
    with any_database.write() as session:
        service.hold(session, [lora.id])
        with pytest.raises(NotFound, match="'art_gone'"):
            service.hold(session, [lora.id, "art_gone"])


def test_what_has_expired_goes_unless_a_job_needs_it(
    any_database: Database, settings: Settings, lora: Artifact, store: Store
) -> None:
    expire(any_database, lora, timedelta(minutes=1))
    look(any_database, settings)
    assert is_there(any_database, lora)
    job = submit(any_database, settings, spec=SPEC | {"loras": [{"artifact": lora.id}]})
    expire(any_database, lora, timedelta(0))
    look(any_database, settings)
    assert is_there(any_database, lora)
    with any_database.write() as session:
        jobs.cancel(session, "ada", job.id)
    look(any_database, settings)
    assert not is_there(any_database, lora)
    with pytest.raises(NotFound):
        store.size(lora.files[0]["store_key"])


def test_whoever_got_more_time_meanwhile_stays(any_database: Database, lora: Artifact) -> None:
    expire(any_database, lora, timedelta(minutes=1))
    with any_database.write() as session:
        assert not removal.remove_expired(session, lora.id, now())
        assert not removal.remove_expired(session, "art_gone", now())


def test_a_name_and_a_time_are_changed_and_taken_back(
    any_database: Database, lora: Artifact
) -> None:
    at = now() + timedelta(days=1)
    with any_database.write() as session:
        changed = service.change(session, "ada", lora.id, {"name": "dog", "expires_at": at})
        assert (changed.name, changed.expires_at) == ("dog", at)
    with any_database.write() as session:
        changed = service.change(session, "ada", lora.id, {"expires_at": None})
        assert (changed.name, changed.expires_at) == ("dog", None)
    with any_database.write() as session:
        with pytest.raises(Unprocessable, match="which is past"):
            service.change(session, "ada", lora.id, {"expires_at": now()})
        with pytest.raises(NotFound):
            service.change(session, "bob", lora.id, {"name": "x"})
