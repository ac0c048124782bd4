"""What a device lost, when it is held back, and that it is let go again."""

from collections.abc import Callable

import pytest

from core.config import Settings
from core.db.engine import Database
from core.db.models import Device, Worker
from core.errors import NotFound
from core.workers import devices
from core.workers import service as workers
from tests.support.jobs import register


@pytest.fixture
def worker(any_database: Database, settings: Settings) -> Worker:
    return register(any_database, settings, device="cpu:1")


@pytest.fixture
def other(any_database: Database, settings: Settings) -> Worker:
    return register(any_database, settings, device="cpu:2")


def lose(database: Database, worker: Worker, *job_ids: str) -> Device:
    """A runner that was at all of these."""
    with database.write() as session:
        return devices.lose(session, worker.device_id, job_ids)


def reread(database: Database, worker: Worker) -> Device:
    with database.read() as session:
        return session.get_one(Device, worker.device_id)


def test_two_jobs_lost_are_enough(any_database: Database, worker: Worker) -> None:
    assert lose(any_database, worker, "job_1").state == "open"
    device = lose(any_database, worker, "job_2")
    assert device.state == "quarantined"
    assert device.reason == "Its runner died of 'job_1' and then of 'job_2'."
    with any_database.read() as session:
        assert workers.open_workers(session) == []
        assert [each.id for each in workers.live_workers(session)] == [worker.id]


def test_one_job_lost_often_is_the_jobs_doing(any_database: Database, worker: Worker) -> None:
    for _ in range(5):
        device = lose(any_database, worker, "job_1")
    assert (device.state, device.lost) == ("open", [["job_1"]])


def test_a_job_that_ended_well_in_between_clears_it(any_database: Database, worker: Worker) -> None:
    lose(any_database, worker, "job_1")
    with any_database.write() as session:
        devices.clear(session, worker.device_id)
    assert (lose(any_database, worker, "job_2").state) == "open"


def test_a_job_that_died_on_two_devices_counts_against_neither(
    any_database: Database, worker: Worker, other: Worker
) -> None:
    lose(any_database, worker, "job_1")
    lose(any_database, other, "job_1")
    assert reread(any_database, worker).lost == reread(any_database, other).lost == []
    assert lose(any_database, worker, "job_2").state == "open"
    assert lose(any_database, other, "job_3").state == "open"


def test_a_batch_is_one_loss_however_often_it_is_told(
    any_database: Database, worker: Worker
) -> None:
    for _ in range(3):
        device = lose(any_database, worker, "job_1", "job_2", "job_3")
    assert (device.state, device.lost) == ("open", [["job_1", "job_2", "job_3"]])
    device = lose(any_database, worker, "job_2")
    assert (device.state, device.lost) == ("open", [["job_2"]]), "it was the culprit"
    device = lose(any_database, worker, "job_4", "job_5")
    assert device.state == "quarantined"
    assert device.reason == "Its runner died of 'job_2' and then of 'job_4'."


def test_one_of_a_batch_that_dies_elsewhere_too_counts_against_neither(
    any_database: Database, worker: Worker, other: Worker
) -> None:
    lose(any_database, worker, "job_1", "job_2")
    lose(any_database, other, "job_2")
    assert reread(any_database, worker).lost == reread(any_database, other).lost == []


def test_a_device_answers_for_its_own_losses_alone(
    any_database: Database, worker: Worker, other: Worker
) -> None:
    lose(any_database, worker, "job_1")
    assert lose(any_database, other, "job_2").state == "open"


def test_it_outlives_its_worker(any_database: Database, settings: Settings, worker: Worker) -> None:
    lose(any_database, worker, "job_1")
    lose(any_database, worker, "job_2")
    with any_database.write() as session:
        workers.sign_off(session, worker.id)
    again = register(any_database, settings, device="cpu:1")
    assert again.device_id == worker.device_id
    with any_database.read() as session:
        ((_, device),) = workers.everyone(session)
    assert device.state == "quarantined"


def test_a_drained_device_is_held_back_until_it_is_released(
    any_database: Database, worker: Worker, other: Worker
) -> None:
    with any_database.write() as session:
        devices.drain(session, worker.id)
    assert reread(any_database, worker).state == "drained"
    with any_database.read() as session:
        assert [each.id for each in workers.open_workers(session)] == [other.id]
    with any_database.write() as session:
        devices.release(session, worker.id)
    device = reread(any_database, worker)
    assert (device.state, device.reason) == ("open", None)


def test_a_release_forgets_what_was_lost(any_database: Database, worker: Worker) -> None:
    lose(any_database, worker, "job_1")
    lose(any_database, worker, "job_2")
    with any_database.write() as session:
        devices.release(session, worker.id)
    assert lose(any_database, worker, "job_3").state == "open"


@pytest.mark.parametrize("action", [devices.drain, devices.release])
def test_a_worker_that_is_not_there(database: Database, action: Callable[..., Worker]) -> None:
    with database.write() as session, pytest.raises(NotFound, match="'wrk_x'"):
        action(session, "wrk_x")
