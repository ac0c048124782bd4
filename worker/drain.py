"""Claim, run, record, until nothing can be claimed."""

import logging
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from core.artifacts.store import Store
from core.config import Settings
from core.db.engine import Database
from core.db.models import Job, Worker
from core.errors import ServiceError, Unavailable
from core.jobs.attempt import LeaseLost
from core.jobs.claim import claim, is_claimable
from core.log import bind
from worker import inputs
from worker.frames import Begun, Done, Failed, FromRunner, Gone, Picture, Report, Run, Stop, Stopped
from worker.link import Link
from worker.record import Record

log = logging.getLogger(__name__)

_AWAY_SECONDS = 1.0
"""Between two tries to write down what happened, while the database or the store is away."""


class Drain:
    """One at a time in a worker. Nothing here holds a transaction while the device works."""

    def __init__(
        self, worker: Worker, link: Link, database: Database, store: Store, settings: Settings
    ) -> None:
        self.worker = worker
        self.link = link
        self.database = database
        self.store = store
        self.settings = settings
        self.stopping = threading.Event()
        self._one = threading.Lock()
        self._current: str | None = None
        self._cancelled: set[str] = set()

    def until_empty(self) -> None:
        """Runs what can be claimed. Returns at once when another thread is at it already."""
        if not self._one.acquire(blocking=False):
            return
        try:
            while self._may_claim() and (job := self._claim()) is not None:
                with bind(job=job.id, attempt=job.attempt):
                    self._current = job.id
                    self._work_on(job)
                    self._current = None
        finally:
            self._one.release()

    def cancel(self, job_ids: frozenset[str]) -> None:
        """Passes a client's wish on, if it concerns the job that runs here."""
        if self._current in job_ids and self._current not in self._cancelled:
            self._cancelled.add(self._current)
            self.link.send(Stop())

    def stop(self) -> None:
        """No further claim; the job that runs goes back to the queue at its next step."""
        self.stopping.set()
        self.link.send(Stop())

    def _may_claim(self) -> bool:
        return self.link.ready.is_set() and not self.stopping.is_set()

    def _claim(self) -> Job | None:
        try:
            with self.database.read() as session:
                if not is_claimable(session, self.worker.role):
                    return None
            with self.database.write() as session:
                return claim(session, self.worker)
        except Unavailable as error:
            log.warning("cannot claim: %s", error.detail)
            return None

    def _work_on(self, job: Job) -> None:
        log.info("claimed a %s job", job.kind)
        record = Record(job, self.database, self.store, self.settings)
        folder = Path(tempfile.mkdtemp(prefix=f"{job.id}-", dir=self.settings.scratch_path))
        try:
            record.begin()
            run = self._prepare(job, folder)
            self._listen(self.link.run(run), record)
        except LeaseLost:
            log.warning("another attempt has the job: this one wrote no more")
        except Unavailable as error:
            _persist(partial(record.give_back, error.code))
        except ServiceError as error:
            _persist(partial(record.fail, error.code, error.detail))
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _prepare(self, job: Job, folder: Path) -> Run:
        with self.database.read() as session:
            needed = inputs.look_up(session, job)
        return inputs.lay_out(needed, job, self.store, self.settings, folder)

    def _listen(self, frames: Iterator[FromRunner], record: Record) -> None:
        """Hears the runner out, always to its last word: the next job's answers come after it."""
        begun = lost = False
        for frame in frames:
            begun = begun or isinstance(frame, Begun)
            if lost:
                continue
            try:
                self._note(frame, record, begun)
            except LeaseLost:
                lost = True
                self.link.send(Stop())
        if lost:
            raise LeaseLost

    def _note(self, frame: FromRunner, record: Record, begun: bool) -> None:
        match frame:
            case Report():
                with suppress(Unavailable):  # the next one says as much
                    record.progress(frame)
                if record.cancel_requested:
                    self.cancel(frozenset({record.job.id}))
            case Picture():
                _persist(partial(record.picture, frame))
            case Done():
                _persist(partial(record.succeed, frame))
            case Failed():
                _persist(partial(record.fail, frame.code, frame.detail))
            case Stopped():
                _persist(partial(self._stopped, record))
            case Gone():
                _persist(record.lose_runner if begun else partial(record.give_back, "runner_lost"))

    def _stopped(self, record: Record) -> None:
        if record.job.id in self._cancelled:
            record.cancel()
        else:
            record.give_back("worker_stopped")


def _persist(write: Callable[[], None]) -> None:
    """Keeps at it while database or store are away; the fence says whether it still counts."""
    while True:
        try:
            return write()
        except Unavailable as error:
            log.warning("cannot write down what happened yet: %s", error.detail)
            time.sleep(_AWAY_SECONDS)
