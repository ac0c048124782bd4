"""A dataset goes, or a picture of it, unless a job needs it."""

from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import pytest
from sqlalchemy import select

from core import crash
from core.config import Settings
from core.datasets import removal, service
from core.db.engine import Database
from core.db.models import Dataset, Deletion, Image
from core.errors import DatasetFrozen, InUse, NotFound
from core.jobs import service as jobs
from core.owners import quotas
from tests.core.jobs.test_service import fine_tune, make_dataset
from tests.core.test_retention import store, train, worker
from tests.support.jobs import SPEC, fail, register, reread, submit, take

__all__ = ["store", "worker"]


def remove(database: Database, dataset: str, owner: str = "ada") -> None:
    with database.write() as session:
        removal.remove(session, owner, dataset)


def remove_image(database: Database, dataset: str, image: str, owner: str = "ada") -> None:
    with database.write() as session:
        removal.remove_image(session, owner, dataset, image)


def planned(database: Database) -> set[str]:
    with database.read() as session:
        return set(session.scalars(select(Deletion.prefix)))


def begun_with(dataset: str) -> dict[str, Any]:
    """A drawing that begins with the dataset's first picture."""
    image = {"dataset": dataset, "image": f"img_{dataset}0", "strength": 0.5}
    return SPEC | {"image": image}


def test_a_dataset_goes_with_its_pictures(any_database: Database) -> None:
    gone, kept = make_dataset(any_database, 2), make_dataset(any_database, 1)
    remove(any_database, gone)
    removal.sweep(any_database)
    with any_database.read() as session:
        assert list(session.scalars(select(Dataset.id))) == [kept]
        assert list(session.scalars(select(Image.dataset_id))) == [kept]
    assert planned(any_database) == {f"datasets/{gone}/"}


def test_what_is_to_go_is_nobodys_at_once(any_database: Database) -> None:
    dataset = make_dataset(any_database, 1)
    remove(any_database, dataset)
    with any_database.write() as session:
        assert service.list_page(session, "ada") == ([], None)
        assert quotas.stored_bytes(session, "ada") == 0
        with pytest.raises(NotFound):
            service.get(session, "ada", dataset)
        with pytest.raises(NotFound):
            service.hold(session, [dataset])
    with pytest.raises(NotFound):
        remove(any_database, dataset)


def test_a_job_that_is_made_meanwhile_finds_it_gone(any_database: Database) -> None:
    dataset = make_dataset(any_database, 1)

    def hold() -> None:
        with any_database.write() as session:
            service.hold(session, [dataset])

    with ThreadPoolExecutor(1) as submitter:
        with any_database.write() as session:
            removal.remove(session, "ada", dataset)
            session.flush()
            held = submitter.submit(hold)
            assert not wait([held], 0.5).done
        with pytest.raises(NotFound, match=dataset):
            held.result()


def test_others_write_while_a_large_one_goes(
    any_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From another process, as far as the database can tell."""
    monkeypatch.setattr(removal, "AT_ONCE", 2)
    dataset, written = make_dataset(any_database, 5), []
    other = Database(any_database.engine.url.render_as_string(hide_password=False))

    def write(label: str) -> None:
        written.append(make_dataset(other, 1))

    remove(any_database, dataset)
    monkeypatch.setattr(crash, "point", write)
    removal.sweep(any_database)
    other.dispose()
    assert len(written) == 3
    with any_database.read() as session:
        assert {*session.scalars(select(Dataset.id))} == {*written}


def test_nobody_removes_what_is_anothers(any_database: Database) -> None:
    dataset = make_dataset(any_database, 1)
    with pytest.raises(NotFound):
        remove(any_database, dataset, owner="bob")
    with pytest.raises(NotFound):
        remove_image(any_database, dataset, f"img_{dataset}0", owner="bob")


@pytest.mark.parametrize("state", ["queued", "paused", "running"])
def test_it_stays_while_a_job_needs_it(
    state: str, any_database: Database, settings: Settings
) -> None:
    dataset = make_dataset(any_database, 1)
    job = submit(any_database, settings, kind="fine_tune", spec=fine_tune(dataset))
    if state == "paused":
        with any_database.write() as session:
            jobs.pause(session, "ada", job.id)
    if state == "running":
        take(any_database, register(any_database, settings))
    with pytest.raises(InUse, match=f"'{job.id}' \\({state}\\) needs dataset {dataset}"):
        remove(any_database, dataset)
    if state == "running":
        fail(any_database, reread(any_database, job))
    else:
        with any_database.write() as session:
            jobs.cancel(session, "ada", job.id)
    remove(any_database, dataset)
    with any_database.write() as session, pytest.raises(NotFound, match=dataset):
        jobs.retry(session, settings, "ada", job.id)


def test_what_ended_jobs_saved_on_the_way_goes_too(
    any_database: Database, settings: Settings, request: pytest.FixtureRequest
) -> None:
    at_work, kept_in = request.getfixturevalue("worker"), request.getfixturevalue("store")
    job = train(any_database, settings, at_work, kept_in)
    fail(any_database, job)
    saved = job.checkpoints[0]["files"][0]["store_key"]
    remove(any_database, job.spec["dataset"])
    assert reread(any_database, job).checkpoints == []
    assert planned(any_database) == {f"datasets/{job.spec['dataset']}/", saved}


def test_a_picture_goes_until_the_dataset_is_frozen(
    any_database: Database, settings: Settings
) -> None:
    dataset = make_dataset(any_database, 3)
    remove_image(any_database, dataset, f"img_{dataset}1")
    assert planned(any_database) == {"1"}
    with pytest.raises(NotFound):
        remove_image(any_database, dataset, f"img_{dataset}1")
    submit(any_database, settings, kind="fine_tune", spec=fine_tune(dataset))
    with pytest.raises(DatasetFrozen, match="make a new one"):
        remove_image(any_database, dataset, f"img_{dataset}2")


def test_a_picture_that_a_drawing_begins_with_stays(
    any_database: Database, settings: Settings
) -> None:
    dataset = make_dataset(any_database, 2)
    job = submit(any_database, settings, spec=begun_with(dataset))
    with pytest.raises(InUse, match=f"'{job.id}'"):
        remove_image(any_database, dataset, f"img_{dataset}0")
    with pytest.raises(InUse, match=f"'{job.id}'"):
        remove(any_database, dataset)
    remove_image(any_database, dataset, f"img_{dataset}1")
