"""One device's worker: everything it owns, from its lock to its last word."""

import logging
import os
from collections.abc import Callable
from contextlib import suppress

from core import bases
from core.artifacts.store import Store
from core.config import Settings
from core.db.engine import Database
from core.db.models import Worker
from core.errors import Unavailable
from core.jobs.reaper import Reaper, bury_predecessors
from core.retention import Retention
from core.workers import devices
from core.workers import service as workers
from core.workers.host import identity, lock_path
from core.workers.service import BeatAnswer, Condition
from worker import scratch
from worker.drain import Drain
from worker.heartbeat import FENCE_SHARE, Heartbeat
from worker.quarters import Quarters
from worker.watch import Watch

log = logging.getLogger(__name__)


UNFIT_AFTER = 5
"""Runners in a row that end before they are ready, by a failed self-test or otherwise."""


class Station:
    """``ring`` is how it wakes its own drain; the drain itself runs where Celery runs tasks."""

    def __init__(self, settings: Settings, quarters: Quarters, ring: Callable[[], None]) -> None:
        self.settings = settings
        self.quarters = quarters
        self.ring = ring
        self.device, self.worker_id = quarters.device, quarters.worker_id
        self.link = quarters.link
        self.database = Database.of(settings)
        scratch.sweep(settings.scratch_path, settings.run_path)
        store = Store.of(settings)
        self.drain = Drain(self._register(), self.link, self.database, store, settings)
        self.heartbeat = Heartbeat(
            self.database,
            settings,
            self.worker_id,
            condition=self._condition,
            on_answer=self._heard,
            on_silence=self.link.fence,
        )
        self.watch = Watch(settings, self._look)
        self.reaper = Reaper(self.database, settings)
        self.retention = Retention(self.database, store, settings)

    def start(self) -> None:
        for part in (self.heartbeat, self.watch, self.reaper, self.retention):
            part.start()
        self.link.on_change = self._runner_changed
        self._runner_changed()  # it may have before

    def work(self) -> None:
        """The bell was heard: run whatever can be claimed, or see whether what runs should stop."""
        if self.drain.is_busy:
            self._mind()
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
        self.quarters.leave()
        self.database.dispose()

    def _register(self) -> Worker:
        with self.database.write() as session:
            worker = workers.register(
                session,
                worker_id=self.worker_id,
                host=identity(self.settings.run_path),
                pid=os.getpid(),
                device=self.device.name,
                role=self.device.role,
                bases=bases.ids_here(self.settings),
            )
            dead = bury_predecessors(session, worker)
        for worker_id in dead:
            lock_path(self.settings.run_path, worker_id).unlink(missing_ok=True)
        return worker

    def _condition(self) -> Condition:
        here = bases.ids_here(self.settings)
        return Condition(self.link.chip, here, self.link.resident, self.drain.jobs)

    def _runner_changed(self) -> None:
        if self.link.early_deaths == UNFIT_AFTER:
            self._give_up_device()
        self.heartbeat.nudge()
        self.ring()

    def _heard(self, answer: BeatAnswer) -> None:
        if not answer.known:
            log.error("this worker was given up for dead: ending, to begin afresh")
            os._exit(1)  # the runner and the locks go with us; the supervisor starts another
        went_on = self.link.goes_on
        self.link.go_on(FENCE_SHARE * self.settings.lease_seconds)
        if not went_on:
            self.ring()  # nothing was claimed meanwhile
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
        if self.drain.is_busy:
            self._mind()
            return
        with suppress(Unavailable):
            if self.drain.has_work() and self.link.ready.is_set():
                self.ring()

    def _mind(self) -> None:
        """Whether a client wants the job that runs to end, or a picture its device."""
        with suppress(Unavailable):
            with self.database.read() as session:
                wishes = workers.wishes(session, self.worker_id)
            self.drain.heed(wishes)
            self.drain.make_way()
