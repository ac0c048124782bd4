"""A storm: many jobs, some workers, and somebody who kills, freezes and flushes at random.

All that happens is drawn from one seed, which is printed; what the machine makes of it is not, so a
second run meets the same faults at other moments.
"""

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import redis
from sqlalchemy import select, text

from core.db.engine import Database
from core.db.models import Device, Event, Job, Worker, is_running
from core.errors import Unavailable
from core.jobs.states import TERMINAL
from core.workers import devices
from tests.faults.place import Place, somebody_can_write
from tests.support.server import SILENT, children_of

FREEZE_SECONDS = 5.0
"""Longer than the lease of tests."""
QUIET_SECONDS = (1.5, 5.0)
"""Between two faults."""


@dataclass(frozen=True)
class Blow:
    """A job lost its worker or runner.

    ``at`` is in seconds since the epoch. For ``hidden_seconds`` nobody could know it, or say it:
    see ``Storm.freeze_worker``.
    """

    fault: str
    job_id: str
    at: float
    hidden_seconds: float


@dataclass
class Damage:
    """What was done, and to whom."""

    done: Counter[str] = field(default_factory=Counter)
    blows: list[Blow] = field(default_factory=list)
    released: int = 0
    """Devices that were taken out of quarantine again, as an operator would."""


class Storm:
    """One thread that does damage until it is told to stop."""

    def __init__(
        self, place: Place, seed: int, quiet_seconds: tuple[float, float] = QUIET_SECONDS
    ) -> None:
        self.quiet_seconds = quiet_seconds
        self.database = place.database
        self.broker_url = place.broker_url
        self.place = place
        self.random = random.Random(seed)
        self.damage = Damage()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="storm")

    def __enter__(self) -> Damage:
        self._thread.start()
        return self.damage

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        faults = [self.kill_runner, self.kill_worker, self.freeze_worker, self.kill_api]
        if self.broker_url:
            faults += [self.flush_broker, self.cut_connections]
        while not self._stopping.wait(self.random.uniform(*self.quiet_seconds)):
            fault = self.random.choice(faults)
            # nobody is there to be hit, or has died by itself meanwhile
            with suppress(LookupError, StopIteration, OSError, ValueError):
                fault()
                self.damage.done[fault.__name__] += 1
            self.release_devices()

    def kill_runner(self) -> None:
        worker = self._any_worker()
        (runner,) = children_of(worker.pid)
        self._strike("kill_runner", worker, lambda: os.kill(runner, signal.SIGKILL))

    def kill_worker(self) -> None:
        worker = self._any_worker()
        self._strike("kill_worker", worker, lambda: os.kill(worker.pid, signal.SIGKILL))

    def kill_api(self) -> None:
        os.kill(self.place.pid_of_api(), signal.SIGKILL)

    def freeze_worker(self) -> None:
        """Past its lease; then it wakes up and finds out.

        Until the lease ends nobody can know. A worker that is frozen inside a transaction of SQLite
        holds the database's one lock, which nobody can take from it: until it thaws nobody can say.
        """
        worker = self._any_worker()
        began = time.monotonic()

        def hidden_seconds() -> float:
            lease_seconds = float(SILENT["STILLROOM_LEASE_SECONDS"])
            return lease_seconds if somebody_can_write(self.database) else FREEZE_SECONDS

        try:
            self._strike(
                "freeze_worker", worker, lambda: os.kill(worker.pid, signal.SIGSTOP), hidden_seconds
            )
            time.sleep(max(0.0, began + FREEZE_SECONDS - time.monotonic()))
        finally:
            os.kill(worker.pid, signal.SIGCONT)

    def flush_broker(self) -> None:
        with redis.Redis.from_url(self.broker_url) as broker:
            broker.flushall()

    def cut_connections(self) -> None:
        """As a restart of the database does."""
        with self.database.engine.connect() as connection:
            connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )

    def release_devices(self) -> None:
        """Kills of ours look like those of a broken device."""
        with self.database.write() as session:
            held = session.scalars(select(Device).where(Device.state != devices.OPEN)).all()
            for device in held:
                device.state, device.lost = devices.OPEN, []
            self.damage.released += len(held)

    def _any_worker(self) -> Worker:
        with self.database.read() as session:
            return self.random.choice(session.scalars(select(Worker).where(Worker.ready)).all())

    def _strike(
        self,
        fault: str,
        worker: Worker,
        blow: Callable[[], None],
        hidden_seconds: Callable[[], float] = lambda: 0,
    ) -> None:
        """Notes whose job was hit."""
        blow()
        at = time.time()
        with self.database.read() as session:
            hit = session.scalars(select(Job.id).where(is_running, Job.worker_id == worker.id))
            ids = list(hit)
        hidden = hidden_seconds()
        self.damage.blows += [Blow(fault, job_id, at, hidden) for job_id in ids]


def recoveries_of(database: Database, damage: Damage) -> list[tuple[float, str]]:
    """Seconds from when each blow could be known to the job's next move, and the fault; the worst
    come last."""
    recoveries = []
    with database.read() as session:
        for blow in damage.blows:
            moves = session.scalars(
                select(Event).where(Event.job_id == blow.job_id, Event.type == "state")
            )
            after = [event.at.timestamp() - blow.at for event in moves]
            after = [seconds - blow.hidden_seconds for seconds in after if seconds > 0]
            recoveries += [(max(0.0, min(after)), blow.fault)] if after else []
    return sorted(recoveries)


def wait_for_all(database: Database, job_ids: list[str], seconds: float) -> None:
    def all_ended() -> bool:
        try:
            with database.read() as session:
                states = session.execute(select(Job.id, Job.state)).all()
        except Unavailable:
            return False  # the storm has cut our own connection
        return {job_id for job_id, state in states if state in TERMINAL} >= set(job_ids)

    deadline = time.monotonic() + seconds
    while not all_ended():
        assert time.monotonic() < deadline, f"after {seconds} s some jobs have not ended"
        time.sleep(0.2)
