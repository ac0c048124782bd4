"""What tests of the loop do and look at."""

import sys
import threading
import time
from collections.abc import Callable

from core.db.engine import Database
from core.db.models import Device, Job, Worker
from core.jobs import logs
from core.jobs.transition import events_after
from tests.support.server import wait_until
from worker.drain import Drain

SCRIPTED = (sys.executable, "-m", "tests.support.scripted_runner")
Play = Callable[[str], Job]
"""Submits a job that does what its prompt says."""


def reasons(database: Database, job: Job) -> list[str]:
    """Why it changed its state, where that was told."""
    with database.read() as session:
        states = [e.data for e in events_after(session, job.id, 0, 500) if e.type == "state"]
    return [data["reason"] for data in states if "reason" in data]


def lines_of(database: Database, job: Job) -> list[str]:
    with database.read() as session:
        return logs.tail(session, job.id, 100)


def device_of(database: Database, worker: Worker) -> Device:
    with database.read() as session:
        return session.get_one(Device, worker.device_id)


def in_background(drain: Drain) -> threading.Thread:
    thread = threading.Thread(target=drain.until_empty)
    thread.start()
    return thread


def running(drain: Drain, look: Callable[[Job], Job], job: Job) -> threading.Thread:
    """The drain's thread, once the job has taken a step."""
    thread = in_background(drain)
    wait_until(lambda: look(job).progress["step"] > 0, 60, "it runs")
    return thread


def attend_until_it_ends(drain: Drain, thread: threading.Thread) -> None:
    deadline = time.monotonic() + 60
    while thread.is_alive():
        assert time.monotonic() < deadline, "it was not ended"
        drain.attend()
        thread.join(0.02)
