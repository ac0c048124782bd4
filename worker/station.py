"""One device's worker: everything it owns, from its lock to its last word."""

import logging
import os
import socket
from collections.abc import Callable

from core import bases
from core.artifacts.store import Store
from core.config import Settings
from core.db.engine import Database
from core.db.models import Worker
from core.errors import Unavailable
from core.files.lock import LockFile
from core.ids import new_id
from core.jobs.reaper import Reaper
from core.retention import Retention
from core.workers import devices
from core.workers import service as workers
from core.workers.host import identity
from core.workers.service import BeatAnswer, Condition, lock_path
from worker import scratch
from worker.device import Device, parse_pinned
from worker.drain import Drain
from worker.frames import GoOn
from worker.heartbeat import FENCE_SHARE, Heartbeat
from worker.link import Link
from worker.watch import Watch

log = logging.getLogger(__name__)


UNFIT_AFTER = 5
"""Runners in a row that end before they are ready, by a failed self-test or otherwise."""


class DeviceTaken(Exception):
    """Another worker of this home drives the device."""


class Station:
    """``ring`` is how it wakes its own drain; the drain itself runs where Celery runs tasks."""

    def __init__(self, settings: Settings, ring: Callable[[], None]) -> None:
        self.settings = settings
        self.ring = ring
        self.device = parse_pinned(settings.device)
        self.worker_id = new_id("wrk")
        self.database = Database.of(settings)
        self.device_lock = _take_device(settings, self.device)
        self.card = None if self.device.is_cpu else _take_card(self.device)
        self.lock = _take_own(settings, self.worker_id)
        scratch.sweep(settings.scratch_path, settings.run_path)
        self.link = Link(self.lock, self._runner_changed)
        store = Store.of(settings)
        self.drain = Drain(self._register(), self.link, self.database, store, settings)
        self.heartbeat = Heartbeat(
            self.database,
            settings,
            self.worker_id,
            condition=self._condition,
            on_answer=self._heard,
            on_silence=self.link.kill,
        )
        self.watch = Watch(settings, self._look)
        self.reaper = Reaper(self.database, settings)
        self.retention = Retention(self.database, store, settings)

    def start(self) -> None:
        for part in (self.heartbeat, self.link, self.watch, self.reaper, self.retention):
            part.start()

    def work(self) -> None:
        """The bell was heard: run whatever can be claimed."""
        self.drain.until_empty()

    def stop(self) -> None:
        """No further claim; what runs goes back to the queue at its next step."""
        self.drain.stop()

    def close(self) -> None:
        """Lets the job that runs be saved and given back, ends the runner, then takes this worker's
        row and locks away."""
        self.drain.stop()
        self.drain.wait_until_idle(self.settings.grace_seconds)
        for part in (self.watch, self.heartbeat, self.reaper, self.retention):
            part.stop()
        self.link.close()
        try:
            with self.database.write() as session:
                workers.sign_off(session, self.worker_id)
        except Unavailable:
            log.warning("could not sign off: the reaper will find the lock free")
        self.lock.path.unlink(missing_ok=True)
        if self.card is not None:
            self.card.close()
        self.database.dispose()

    def _register(self) -> Worker:
        with self.database.write() as session:
            return workers.register(
                session,
                worker_id=self.worker_id,
                host=identity(self.settings.run_path),
                pid=os.getpid(),
                device=self.device.name,
                role=self.device.role,
                bases=bases.ids_here(self.settings),
            )

    def _condition(self) -> Condition:
        here = bases.ids_here(self.settings)
        return Condition(self.link.chip, here, self.link.resident, self.drain.job)

    def _runner_changed(self) -> None:
        if self.link.early_deaths == UNFIT_AFTER:
            self._give_up_device()
        self.heartbeat.nudge()
        self.ring()

    def _heard(self, answer: BeatAnswer) -> None:
        if not answer.known:
            log.error("this worker was given up for dead: ending, to begin afresh")
            os._exit(1)  # the runner and the locks go with us; the supervisor starts another
        self.link.send(GoOn(seconds=FENCE_SHARE * self.settings.lease_seconds))
        self.drain.heed(answer.wishes)
        self.drain.attend()

    def _give_up_device(self) -> None:
        reason = f"Its runner ended {UNFIT_AFTER} times before it was ready."
        log.error("%s is in quarantine: %s", self.device.name, reason)
        try:
            with self.database.write() as session:
                device = devices.ensure(session, self.drain.worker.device_id)
                devices.quarantine(session, device, reason)
        except Unavailable as error:
            log.warning("could not write that down: %s", error.detail)

    def _look(self) -> None:
        """Somebody wrote to the database, or a while has passed."""
        try:
            has_work = not self.drain.is_busy and self.drain.has_work()
            with self.database.read() as session:
                wishes = workers.wishes(session, self.worker_id)
            self.drain.heed(wishes)
            self.drain.make_way()
        except Unavailable:
            return
        if has_work and self.link.ready.is_set():
            self.ring()


def _take_device(settings: Settings, device: Device) -> LockFile:
    """It belongs to one worker: of the CPU, each share has a name of its own."""
    lock = LockFile.take(settings.run_path / f"{device.name.replace(':', '-')}.lock")
    if lock is None:
        other = ": name a share of your own, such as cpu:7" if device.is_cpu else ""
        raise DeviceTaken(f"another worker of {settings.root} drives {device.name} already{other}")
    return lock


def _take_card(device: Device) -> socket.socket:
    """Its name on this host, whoever drives it and from whatever home. Of sockets without a file
    the kernel keeps each name once, and takes it back when the process is dead."""
    card = socket.socket(socket.AF_UNIX)
    try:
        card.bind(f"\0stillroom/{device.uuid}")
    except OSError as error:
        card.close()
        raise DeviceTaken(
            f"another worker of this host drives {device.name} ({device.uuid}) from a home of its "
            "own: end it first, or name another card"
        ) from error
    return card


def _take_own(settings: Settings, worker_id: str) -> LockFile:
    lock = LockFile.take(lock_path(settings.run_path, worker_id))
    assert lock is not None, "the name is new"
    return lock
