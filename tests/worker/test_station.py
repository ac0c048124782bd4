"""A worker with all its parts, around a runner that never gets ready."""

import os
import sys
from pathlib import Path

import pytest

from core.config import Settings
from core.db.engine import Database
from core.db.models import Device
from core.files.lock import is_held
from core.workers import service as workers
from core.workers.service import lock_path
from tests.support.server import wait_until
from worker import link
from worker.station import UNFIT_AFTER, DeviceTaken, Station


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


def test_a_card_has_one_worker_on_a_host_whatever_their_homes(
    database: Database, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uuid = f"GPU-{tmp_path.name}-{os.getpid()}"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", uuid)
    other = Settings(home=tmp_path / "other", database_url=settings.effective_database_url)
    other.prepare()
    station = Station(settings.model_copy(update={"device": "cuda:0"}), ring=lambda: None)
    here = other.model_copy(update={"device": "cuda:3"})
    with pytest.raises(DeviceTaken, match=rf"drives cuda:3 \({uuid}\) from a home of its own"):
        Station(here, ring=lambda: None)
    station.link.command = (sys.executable, "-c", "raise SystemExit(3)")
    station.start()
    station.close()
