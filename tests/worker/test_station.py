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
from core.workers.host import lock_path
from core.workers.service import BeatAnswer
from tests.support import jobs as make
from tests.support.server import wait_until
from worker import link
from worker.device_lock import DeviceTaken
from worker.quarters import Quarters
from worker.station import UNFIT_AFTER, Station


def station_of(settings: Settings) -> Station:
    quarters = Quarters.take(settings)
    quarters.link.command = (sys.executable, "-c", "raise SystemExit(3)")
    return Station(settings, quarters, ring=lambda: None)


def devices_of(database: Database) -> list[Device]:
    with database.read() as session:
        return [device for _, device in workers.everyone(session)]


def test_a_device_whose_runners_never_get_ready_is_held_back(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "_BACKOFF_SECONDS", (0.0,))
    station = station_of(settings)
    station.start()
    station.link.start()
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
    station = station_of(settings.model_copy(update={"device": "cuda:0"}))
    here = other.model_copy(update={"device": "cuda:3"})
    with pytest.raises(DeviceTaken, match=rf"drives cuda:3 \({uuid}\) from a home of its own"):
        Quarters.take(here)
    station.start()
    station.link.start()
    station.close()


def test_who_takes_a_device_gives_the_jobs_back_of_whoever_drove_it(
    database: Database, settings: Settings
) -> None:
    """Before any reaper looks: or it could begin one while another counts as running there."""
    other = make.register(database, settings, device="cpu:1")
    dead = make.register(database, settings)
    make.submit(database, settings)
    job = make.take(database, dead)
    left = lock_path(settings.run_path, dead.id)
    left.touch()
    station = station_of(settings)
    assert make.reread(database, job).state == "queued"
    with database.read() as session:
        known = {worker.id for worker, _ in workers.everyone(session)}
    assert known == {other.id, station.worker_id}
    assert not left.exists()
    station.start()
    station.link.start()
    station.close()


def test_a_beat_that_is_answered_late_wakes_the_drain_that_claimed_nothing_meanwhile(
    database: Database, settings: Settings
) -> None:
    rings: list[int] = []
    quarters = Quarters.take(settings)
    station = Station(settings, quarters, ring=lambda: rings.append(1))
    station._heard(BeatAnswer(known=True, wishes={}))
    assert rings == []
    station.link.go_on(0.0)
    station._heard(BeatAnswer(known=True, wishes={}))
    assert rings == [1]
    assert station.link.goes_on
    station.start()
    station.link.start()
    station.close()
