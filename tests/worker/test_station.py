"""A worker with all its parts, around a runner that never gets ready."""

import sys

import pytest

from core.config import Settings
from core.db.engine import Database
from core.db.models import Device
from core.files.lock import is_held
from core.workers import service as workers
from core.workers.service import lock_path
from tests.support.server import wait_until
from worker import link
from worker.station import UNFIT_AFTER, Station


def devices_of(database: Database) -> list[Device]:
    with database.read() as session:
        return [device for _, device in workers.everyone(session)]


def test_a_device_whose_runners_never_get_ready_is_held_back(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "_BACKOFF_SECONDS", (0.0,))
    station = Station(settings, ring=lambda: None)
    station.link.command = (sys.executable, "-c", "raise SystemExit(3)")
    station.start()
    wait_until(lambda: devices_of(database)[0].state == "quarantined", 30, "it is held back")
    (device,) = devices_of(database)
    assert device.reason == f"Its runner ended {UNFIT_AFTER} times before it was ready."
    assert is_held(lock_path(settings.run_path, station.worker_id))
    station.close()
    assert devices_of(database) == []
    assert not lock_path(settings.run_path, station.worker_id).exists()
