"""The supervisor says in a sentence why it does not start."""

import os
import subprocess
import sys
import time

from sqlalchemy import text

from core.config import Settings
from core.db.engine import Database
from worker.device import Device
from worker.device_lock import DeviceLock
from worker.supervisor import Child


def start(settings: Settings) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "worker.supervisor", "--workers-only"],
        env={**os.environ, "STILLROOM_HOME": str(settings.root), "STILLROOM_DEVICES": "cpu"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_database_of_a_later_version_ends_it_with_a_sentence(
    database: Database, settings: Settings
) -> None:
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    ended = start(settings)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    (sentence,) = [line for line in ended.stderr.splitlines() if line.startswith("The database")]
    assert "a revision that this version does not know" in sentence
    assert "start the version of Stillroom that the others run" in sentence


def test_a_device_that_another_worker_drives_ends_it_with_a_sentence(
    database: Database, settings: Settings
) -> None:
    """And starts no child that would be refused again and again."""
    lock = DeviceLock.take(settings, Device("cpu"))
    ended = start(settings)
    assert ended.returncode == 1
    assert "drives cpu already: name a share of your own, such as cpu:7" in ended.stderr
    lock.release()


def test_a_child_that_dies_again_and_again_is_started_ever_later() -> None:
    child = Child("unlucky", [sys.executable, "-c", "raise SystemExit(3)"], {})
    pauses: list[int] = []
    for _ in range(3):
        child.start_again_at = 0.0
        child.tend()
        assert child.process is not None
        child.process.wait()
        noticed_at = time.monotonic()
        child.tend()
        assert child.process is None
        pauses.append(round(child.start_again_at - noticed_at))
    assert pauses == [1, 2, 5]
