"""Claim, run, record, until nothing can be claimed."""

import logging
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from core import bases, crash
from core.artifacts.store import Store
from core.config import MIB, Settings
from core.db import migrate
from core.db.engine import Database
from core.db.models import Job, Worker
from core.errors import Unavailable
from core.files.space import free_bytes
from core.jobs.claim import claim, is_claimable
from core.jobs.preemption import must_make_way
from core.jobs.states import Wish
from worker import inputs, scratch
from worker.frames import Run
from worker.link import Link
from worker.record import Record
from worker.tail import Tail, names
from worker.turn import Turn

log = logging.getLogger(__name__)


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
        self._stopping = threading.Event()
        self._one = threading.Lock()
        self._called = False
        self._turns: list[Turn] = []
        self._revision = migrate.head()
        link.on_stderr = self._hear

    @property
    def is_busy(self) -> bool:
        return self._one.locked()

    @property
    def jobs(self) -> list[str]:
        """What runs here."""
        return [turn.job.id for turn in self._turns]

    def until_empty(self) -> None:
        """Runs what can be claimed. Returns at once when another thread is at it already, which
        then looks once more: it may have seen an empty queue just before this call."""
        self._called = True
        while self._called and self._one.acquire(blocking=False):
            try:
                self._called = False
                while self._may_claim() and (jobs := self._claim()):
                    self._work_on(jobs)
            finally:
                self._one.release()

    def heed(self, wishes: Mapping[str, Wish]) -> None:
        """Passes clients' wishes on, where they concern what runs here."""
        for turn in self._turns:
            if wish := wishes.get(turn.job.id):
                turn.heed(wish)

    def attend(self) -> None:
        """Ends a runner that hangs, or that a cancel does not reach. Of a batch it sees to some
        while others wait: it is ended when none of them is left that it says anything about or
        that is still wanted. A cancel that it does not heed until then ends the job alone."""
        at_work = [turn for turn in self._turns if turn.is_with_runner]
        if not all(turn.is_silent or turn.is_deaf for turn in at_work):
            for turn in at_work:
                if turn.is_deaf:
                    turn.leave_deaf()
            return
        for turn in at_work:
            if turn.is_silent:
                turn.end_hung()
            else:
                turn.drop()

    def make_way(self) -> None:
        """Has the training that runs saved and given back, if a picture of higher priority needs
        the device."""
        for turn in self._turns:
            if turn.job.kind != "generate" and not turn.makes_way and self._is_needed(turn):
                log.info("making way for a picture of higher priority")
                turn.makes_way = True
                turn.stop(save=True)

    def stop(self) -> None:
        """No further claim; what runs goes back to the queue at its next step."""
        self._stopping.set()
        for turn in self._turns:
            turn.stop(save=True)

    def wait_until_idle(self, seconds: float) -> None:
        """Until what runs has been written down: a drain may run in any thread."""
        if self._one.acquire(timeout=seconds):
            self._one.release()

    def has_work(self) -> bool:
        """Whether there is something for this worker to claim; a look that writes nothing."""
        if not self._has_room():
            return False
        with self.database.read() as session:
            return is_claimable(
                session,
                self.worker,
                bases.ids_here(self.settings),
                max_running=self.settings.max_running_jobs,
            )

    def _may_claim(self) -> bool:
        """Not while the runner would stop at its first step: no beat was answered for long."""
        can_run = self.link.ready.is_set() and self.link.goes_on
        return can_run and not self._stopping.is_set()

    def _is_needed(self, turn: Turn) -> bool:
        """Its device, by a picture."""
        here = bases.ids_here(self.settings)
        with self.database.read() as session:
            return must_make_way(session, self.settings, self.worker, turn.job.id, here)

    def _has_room(self) -> bool:
        free = free_bytes(self.settings.root)
        if free < self.settings.min_free_bytes:
            log.warning(
                "nothing is claimed: %d MB are free on the home's disk, and "
                "STILLROOM_MIN_FREE_BYTES asks for %d",
                free // MIB,
                self.settings.min_free_bytes // MIB,
            )
        return free >= self.settings.min_free_bytes

    def _claim(self) -> list[Job]:
        try:
            if not self.has_work():
                return []
            with self.database.write() as session:
                migrate.require(session, self._revision)
                here = bases.ids_here(self.settings)
                jobs = claim(
                    session,
                    self.worker,
                    here,
                    self.link.resident,
                    max_running=self.settings.max_running_jobs,
                )
            crash.point("claimed")
            return jobs
        except Unavailable as error:
            log.warning("cannot claim: %s", error.detail)
            return []

    def _work_on(self, jobs: Sequence[Job]) -> None:
        """One training, or drawings that may share a batch: a thread hears each of them out."""
        log.info("claimed %d %s", len(jobs), jobs[0].kind)
        records = [self._record(job, suspects=[each.id for each in jobs]) for job in jobs]
        self._turns = [Turn(record, self.link, self.settings, self._stopping) for record in records]
        try:
            with ExitStack() as stack:
                self._carry(stack)
        finally:
            self._turns = []

    def _carry(self, stack: ExitStack) -> None:
        runs: dict[Turn, Run] = {}
        for turn in self._turns:
            if run := turn.begin(partial(self._prepare, turn.job, stack)):
                runs[turn] = run
        if not runs:
            return
        lines = self.link.run(*runs.values())
        threads = [
            threading.Thread(target=turn.carry, args=(line,), name=f"turn {line.number}")
            for turn, line in zip(runs, lines, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _record(self, job: Job, suspects: Sequence[str]) -> Record:
        chip = self.link.chip
        return Record(
            job,
            self.database,
            self.store,
            self.settings,
            worker=self.worker,
            chip=chip.name if chip else None,
            tail=Tail(),
            suspects=suspects,
        )

    def _prepare(self, job: Job, stack: ExitStack) -> Run:
        """Lays a job's inputs out in a folder that lives as long as ``stack``; where that fails,
        which may be tried again for hours, nothing of it stays."""
        room = scratch.room_of(self.settings.scratch_path, self.worker.id)
        folder = tempfile.TemporaryDirectory(
            prefix=f"{job.id}-", dir=room, ignore_cleanup_errors=True
        )
        with ExitStack() as ours:
            here = Path(ours.enter_context(folder))
            with self.database.read() as session:
                needed = inputs.look_up(session, job)
            run = inputs.lay_out(needed, job, self.database, self.store, self.settings, here)
            stack.push(ours.pop_all())
        return run

    def _hear(self, line: str) -> None:
        """What the runner writes is for the owner of the job that it is at; of several, for the one
        that it names, and otherwise for none of them."""
        turns = self._turns
        for turn in turns:
            if len(turns) == 1 or names(line, turn.job.id):
                turn.record.tail.hear(line)
