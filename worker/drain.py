"""Claim, run, record, until nothing can be claimed."""

import logging
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TypeVar

from core import bases, crash
from core.artifacts.store import Store
from core.clock import boot_seconds
from core.config import MIB, Settings
from core.db import migrate
from core.db.engine import Database
from core.db.models import Job, Worker
from core.errors import DISK_FULL, ServiceError, Unavailable
from core.files.space import free_bytes, is_full_disk
from core.jobs.attempt import LeaseLost
from core.jobs.claim import claim, is_claimable
from core.jobs.preemption import must_make_way
from core.jobs.states import Wish
from core.log import bind
from worker import inputs, scratch
from worker.frames import (
    Begun,
    Checkpoint,
    Done,
    Failed,
    Gone,
    Note,
    Picture,
    Report,
    Run,
    Snapshot,
    Stopped,
    Word,
)
from worker.link import Link
from worker.pace import Pace
from worker.record import Record

log = logging.getLogger(__name__)

T = TypeVar("T")
_AWAY_SECONDS = 1.0
"""Between two tries to read or write, while the database or the store is away."""


@dataclass
class Turn:
    """The attempt that runs here, for those who may have to interrupt it."""

    job: Job
    pace: Pace
    wish: Wish | None = None
    wished_at: float = 0.0
    is_handed_over: bool = False
    """The runner has it."""
    makes_way: bool = False
    hangs: bool = False

    @property
    def waited_seconds(self) -> float:
        """Since somebody first wished something."""
        return boot_seconds() - self.wished_at


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
        self._turn: Turn | None = None
        self._revision = migrate.head()

    @property
    def is_busy(self) -> bool:
        return self._one.locked()

    @property
    def job(self) -> str | None:
        """What runs here."""
        turn = self._turn
        return turn.job.id if turn else None

    def until_empty(self) -> None:
        """Runs what can be claimed. Returns at once when another thread is at it already."""
        if not self._one.acquire(blocking=False):
            return
        try:
            while self._may_claim() and (job := self._claim()) is not None:
                with bind(job=job.id, attempt=job.attempt):
                    self._work_on(job)
        finally:
            self._one.release()

    def heed(self, wishes: Mapping[str, Wish]) -> None:
        """Passes a client's wish on, if it concerns the job that runs here."""
        turn = self._turn
        wish = wishes.get(turn.job.id) if turn else None
        if turn and wish:
            if turn.wish is None:
                turn.wished_at = boot_seconds()
            turn.wish = wish
            self.link.stop(save=wish == "pause")

    def attend(self) -> None:
        """Ends a runner that hangs, or that a cancel does not reach: nothing of it is kept."""
        turn = self._turn
        if turn is None or turn.hangs:
            return
        if turn.pace.is_hung():
            log.error("no word from the runner for %.0f s: ending it", turn.pace.patience_seconds)
            turn.hangs = True
            self.link.kill()
        elif turn.wish == "cancel" and turn.waited_seconds > self.settings.grace_seconds:
            self.link.kill()

    def make_way(self) -> None:
        """Has the training that runs saved and given back, if a picture of higher priority needs
        the device."""
        turn = self._turn
        if turn is None or turn.makes_way or turn.job.kind == "generate":
            return
        here = bases.ids_here(self.settings)
        with self.database.read() as session:
            turn.makes_way = must_make_way(session, self.settings, self.worker, turn.job.id, here)
        if turn.makes_way:
            log.info("making way for a picture of higher priority")
            self.link.stop(save=True)

    def stop(self) -> None:
        """No further claim; the job that runs goes back to the queue at its next step."""
        self._stopping.set()
        self.link.stop(save=True)

    def wait_until_idle(self, seconds: float) -> None:
        """Until what runs has been written down: a drain may run in any thread."""
        if self._one.acquire(timeout=seconds):
            self._one.release()

    def has_work(self) -> bool:
        """Whether there is something for this worker to claim; a look that writes nothing."""
        if not self._has_room():
            return False
        with self.database.read() as session:
            return is_claimable(session, self.worker, bases.ids_here(self.settings))

    def _may_claim(self) -> bool:
        return self.link.ready.is_set() and not self._stopping.is_set()

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

    def _claim(self) -> Job | None:
        try:
            if not self.has_work():
                return None
            with self.database.write() as session:
                migrate.require(session, self._revision)
                here = bases.ids_here(self.settings)
                job = claim(session, self.worker, here, self.link.resident)
            crash.point("claimed")
            return job
        except Unavailable as error:
            log.warning("cannot claim: %s", error.detail)
            return None

    def _work_on(self, job: Job) -> None:
        log.info("claimed a %s job", job.kind)
        self._turn = turn = Turn(job, Pace(self.settings.watchdog_seconds))
        chip = self.link.chip
        record = Record(
            job,
            self.database,
            self.store,
            self.settings,
            worker=self.worker,
            chip=chip.name if chip else None,
            tail=self.link.tail,
        )
        try:
            room = scratch.room_of(self.settings.scratch_path, self.worker.id)
            with tempfile.TemporaryDirectory(
                prefix=f"{job.id}-", dir=room, ignore_cleanup_errors=True
            ) as folder:
                self._run(job, record, Path(folder))
        except LeaseLost:
            log.warning("another attempt has the job: this one wrote no more")
        except Unavailable:  # and this worker is ending
            self._end(record, partial(record.give_back, "worker_stopped"))
        except ServiceError as error:
            if turn.is_handed_over:
                self.link.kill()  # or it would still be at this job when the next one comes
            self._end(record, partial(record.fail, error.code, error.detail))
        except Exception as error:
            self.link.kill()  # whatever the runner still says is of no use
            if is_full_disk(error):
                return self._end(record, record.wait_for_room)
            log.exception("this worker failed at a job")
            if isinstance(error, OSError):  # of this host: another device may do better
                return self._end(record, partial(record.lose_runner, "failed"))
            detail = "The job met an error of Stillroom's own. The worker's log names it."
            self._end(record, partial(record.fail, "internal_error", detail))
        finally:
            self._turn = None

    def _run(self, job: Job, record: Record, folder: Path) -> None:
        self._patiently(record.begin)
        crash.point("begun")
        run = self._patiently(partial(self._prepare, job, folder))
        crash.point("laid out")
        assert self._turn, "something runs"
        self._turn.is_handed_over = True
        self._listen(self.link.run(run), record)

    def _prepare(self, job: Job, folder: Path) -> Run:
        shutil.rmtree(folder)  # of a try before this one
        folder.mkdir()
        with self.database.read() as session:
            needed = inputs.look_up(session, job)
        return inputs.lay_out(needed, job, self.store, self.settings, folder)

    def _listen(self, words: Iterator[Word], record: Record) -> None:
        """Hears the runner out, always to its last word: only then may it get another job."""
        begun = lost = False
        for word in self._at_its_pace(words):
            begun = begun or isinstance(word, Begun)
            if lost:
                continue
            try:
                self._note(word, record, begun)
            except LeaseLost:
                lost = True
                self.link.stop(save=False)
        if lost:
            raise LeaseLost

    def _at_its_pace(self, words: Iterator[Word]) -> Iterator[Word]:
        """The same, with an eye on how long the runner is silent between them."""
        assert self._turn, "something runs"
        pace = self._turn.pace
        pace.listen()
        for word in words:
            pace.hear(word.step if isinstance(word, Report) else None)
            yield word
            pace.listen()

    def _note(self, word: Word, record: Record, begun: bool) -> None:
        match word:
            case Begun():
                self._stop_what_was_asked_to()
            case Report():
                with suppress(Unavailable):  # the next one says as much
                    record.progress(word)
                if record.wish:
                    self.heed({record.job.id: record.wish})
            case Picture():
                files = self._patiently(partial(record.put, Path(word.path)))
                self._patiently(partial(record.picture, word, files))
            case Snapshot():
                files = self._patiently(partial(record.put, Path(word.path)))
                self._patiently(partial(record.snapshot, word.step, files))
                _remove(Path(word.path))
            case Checkpoint():
                self._keep(word, record)
            case Done():
                made = {
                    role: self._patiently(partial(record.put, Path(path)))
                    for role, path in word.outputs.items()
                }
                self._end(record, partial(record.succeed, made))
            case Note():
                self._patiently(partial(record.note, word.text))
            case Failed(next_rung=int(rung)):
                self._end(record, partial(record.step_down, rung))
            case Failed(code=code) if code == DISK_FULL:
                self._end(record, record.wait_for_room)
            case Failed():
                self._end(record, partial(record.fail, word.code, word.detail))
            case Stopped():
                self._end(record, partial(self._record_stop, record))
            case Gone(killed_by_us=killed):
                hangs = self._turn is not None and self._turn.hangs
                if hangs or (begun and not killed):
                    self._end(record, partial(record.lose_runner, "hung" if hangs else "died"))
                elif killed:
                    self._end(record, partial(record.give_back, "runner_lost"))
                else:
                    self._end(record, record.lose_idle_runner)

    def _keep(self, word: Checkpoint, record: Record) -> None:
        """Brings a checkpoint to the store, from where any host can go on."""
        folder = Path(word.path)
        ours = folder.with_name(f".{folder.name}.leaving")
        try:
            folder.rename(ours)
        except FileNotFoundError:
            return  # the runner has made two newer ones meanwhile
        parts = [self._patiently(partial(record.put, path)) for path in sorted(ours.iterdir())]
        files = list(chain.from_iterable(parts))
        self._patiently(partial(record.checkpoint, word.step, files))
        shutil.rmtree(ours)

    def _stop_what_was_asked_to(self) -> None:
        """What was asked before the runner had the job found nothing to stop."""
        turn = self._turn
        if self._stopping.is_set() or (turn and (turn.wish or turn.makes_way)):
            self.link.stop(save=turn is None or turn.wish != "cancel")

    def _record_stop(self, record: Record) -> None:
        turn = self._turn
        if turn and turn.wish == "cancel":
            record.cancel()
        elif turn and turn.wish == "pause":
            record.give_back("pause_requested")
        elif turn and turn.makes_way:
            record.make_way()
        else:
            record.give_back("worker_stopped" if self._stopping.is_set() else "worker_silent")

    def _end(self, record: Record, write: Callable[[], None]) -> None:
        """The last thing written about an attempt; a lease that was lost needs no more."""
        try:
            self._patiently(write, even_when_stopping=True)
        except LeaseLost:
            log.warning("another attempt has the job: its end was not written", exc_info=True)

    def _patiently(self, action: Callable[[], T], *, even_when_stopping: bool = False) -> T:
        """Keeps at it while database or store are away; the fence says whether it still counts."""
        while True:
            try:
                return action()
            except Unavailable as error:
                if self._stopping.is_set() and not even_when_stopping:
                    raise
                log.warning("waiting: %s", error.detail)
                self._stopping.wait(_AWAY_SECONDS)


def _remove(path: Path) -> None:
    """A file or folder of the runner's that the store has."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
