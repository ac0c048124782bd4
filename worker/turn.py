"""An attempt that runs here: from its first row to its last, whatever its runner says or meets."""

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TypeVar

from core import crash
from core.clock import boot_seconds
from core.config import Settings
from core.db.models import Job
from core.errors import DISK_FULL, ServiceError, Unavailable
from core.files.space import is_full_disk
from core.jobs.attempt import LeaseLost
from core.jobs.states import Wish
from core.log import bind
from worker.frames import (
    Begun,
    Checkpoint,
    Deaf,
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
from worker.link import Line, Link
from worker.pace import Pace
from worker.record import Record

log = logging.getLogger(__name__)

T = TypeVar("T")
_AWAY_SECONDS = 1.0
"""Between two tries to read or write, while the database or the store is away."""


class Turn:
    """One thread begins it and carries it on; others may interrupt it."""

    def __init__(
        self, record: Record, link: Link, settings: Settings, stopping: threading.Event
    ) -> None:
        """``stopping`` is set once this worker is to end."""
        self.record = record
        self.job: Job = record.job
        self.link = link
        self.settings = settings
        self.makes_way = False
        self._stopping = stopping
        self._pace = Pace(settings.watchdog_seconds)
        self._line: Line | None = None
        self._wish: Wish | None = None
        self._stop_sent_at: float | None = None
        """The first time since that wish, or since nobody wants it any more."""
        self._hangs = False
        self._is_over = False
        """What becomes of the job is settled: what is said about it from here on is ignored."""

    def begin(self, prepare: Callable[[], Run]) -> Run | None:
        """Writes that it has begun, and lays its inputs out; None where that ended it."""
        with self._ending():
            self._patiently(self.record.begin)
            crash.point("begun")
            run = self._patiently(prepare)
            crash.point("laid out")
            return run
        return None

    def carry(self, line: Line) -> None:
        """Hears the runner out, always to its last word: only then may it get another job."""
        self._line = line
        begun = False
        try:
            for word in self._at_its_pace(line):
                begun = begun or isinstance(word, Begun)
                if not self._is_over:
                    with self._ending():
                        self._note(word, begun)
        finally:
            self.drop()  # where it was not heard out after all
            self._line = None

    def stop(self, *, save: bool) -> None:
        """At its next step, if the runner has it."""
        line = self._line  # which the thread that carries it may take away meanwhile
        if line is not None:
            self.link.stop(line, save=save)
            self._stop_sent_at = self._stop_sent_at or boot_seconds()

    def heed(self, wish: Wish) -> None:
        """Of a client. Each wish has a grace time of its own."""
        if wish != self._wish:
            self._stop_sent_at = None
            self._wish = wish
        self.stop(save=wish == "pause")

    @property
    def is_with_runner(self) -> bool:
        return self._line is not None

    @property
    def is_silent(self) -> bool:
        """For so long that its runner hangs, unless it has others to see to meanwhile."""
        return self._pace.is_hung()

    @property
    def is_deaf(self) -> bool:
        """It was told longer ago than the grace time to end what nobody wants any more."""
        since, is_wanted = self._stop_sent_at, not self._is_over and self._wish != "cancel"
        if since is None or is_wanted:
            return False
        return boot_seconds() - since > self.settings.grace_seconds

    def leave_deaf(self) -> None:
        """Its job is cancelled now, and the runner left to the others that it sees to."""
        line = self._line
        if line is not None:
            line.put(Deaf())  # the thread that carries it writes about it, and no other

    def end_hung(self) -> None:
        """Of this runner nothing is kept, and the job is held to be lost by it."""
        if not self._hangs:
            log.error("no word from the runner for %.0f s: ending it", self._pace.patience_seconds)
        self._hangs = True
        self.drop()

    @contextmanager
    def _ending(self) -> Iterator[None]:
        """Whatever goes wrong inside ends this turn, and no other."""
        job = self.job
        with bind(job=job.id, attempt=job.attempt, request_id=job.request_id):
            try:
                yield
            except LeaseLost:
                log.warning("another attempt has the job: this one wrote no more")
                self._give_up()
            except Exception as error:
                self._give_up()  # but not the runner, which may be at others' jobs
                self._end(self._end_by(error))

    def _give_up(self) -> None:
        self._is_over = True
        self._stop_sent_at = None
        self.stop(save=False)

    def _end_by(self, error: Exception) -> Callable[[], None]:
        """What is written of a job that met it here."""
        record = self.record
        if isinstance(error, Unavailable):  # and this worker is ending
            return partial(record.give_back, "worker_stopped")
        if isinstance(error, ServiceError):
            return partial(record.fail, error.code, error.detail)
        if is_full_disk(error):
            return record.wait_for_room
        log.error("this worker failed at a job", exc_info=error)
        if isinstance(error, OSError):  # of this host: another device may do better
            return partial(record.lose_runner, "failed")
        detail = "The job met an error of Stillroom's own. The worker's log names it."
        return partial(record.fail, "internal_error", detail)

    def drop(self) -> None:
        """Ends the runner, if it has it: or it would still be at this job when the next comes."""
        line = self._line
        if line is not None:
            self.link.kill(line)

    def _at_its_pace(self, line: Line) -> Iterator[Word]:
        """Its words, with an eye on how long the runner is silent between them."""
        self._pace.listen()
        for word in line:
            self._pace.hear(word.step if isinstance(word, Report) else None)
            yield word
            self._pace.listen()

    def _note(self, word: Word, begun: bool) -> None:
        record = self.record
        match word:
            case Begun():
                self._stop_if_asked_to()
            case Report():
                with suppress(Unavailable):  # the next one says as much
                    record.progress(word)
                if record.wish:
                    self.heed(record.wish)
            case Picture():
                files = self._patiently(partial(record.put, Path(word.path)))
                self._patiently(partial(record.picture, word, files))
            case Snapshot():
                files = self._patiently(partial(record.put, Path(word.path)))
                self._patiently(partial(record.snapshot, word.step, files))
                _remove(Path(word.path))
            case Checkpoint():
                self._keep(word)
            case Note():
                self._patiently(partial(record.note, word.text))
            case Done():
                made = {
                    role: self._patiently(partial(record.put, Path(path)))
                    for role, path in word.outputs.items()
                }
                self._end(partial(record.succeed, made))
            case Failed(next_rung=int(rung)):
                self._end(partial(record.step_down, rung))
            case Failed(code=code) if code == DISK_FULL:
                self._end(record.wait_for_room)
            case Failed():
                self._end(partial(record.fail, word.code, word.detail))
            case Stopped():
                self._end(self._record_stop)
            case Deaf():
                self._is_over = True
                self._end(self.record.cancel)
            case Gone(killed_by_us=killed):
                if self._hangs or (begun and not killed):
                    self._end(partial(record.lose_runner, "hung" if self._hangs else "died"))
                elif killed:
                    self._end(partial(record.give_back, "runner_lost"))
                else:
                    self._end(record.lose_idle_runner)

    def _keep(self, word: Checkpoint) -> None:
        """Brings a checkpoint to the store, from where any host can go on."""
        folder = Path(word.path)
        ours = folder.with_name(f".{folder.name}.leaving")
        try:
            folder.rename(ours)
        except FileNotFoundError:
            return  # the runner has made two newer ones meanwhile
        record = self.record
        parts = [self._patiently(partial(record.put, path)) for path in sorted(ours.iterdir())]
        files = list(chain.from_iterable(parts))
        self._patiently(partial(record.checkpoint, word.step, files))
        shutil.rmtree(ours)

    def _stop_if_asked_to(self) -> None:
        """What was asked before the runner had the job found nothing to stop."""
        if self._stopping.is_set() or self._wish or self.makes_way:
            self.stop(save=self._wish != "cancel")

    def _record_stop(self) -> None:
        if self._wish == "cancel":
            self.record.cancel()
        elif self._wish == "pause":
            self.record.give_back("pause_requested")
        elif self.makes_way:
            self.record.make_way()
        elif self._stopping.is_set():
            self.record.give_back("worker_stopped")
        else:
            self.record.fall_silent()

    def _end(self, write: Callable[[], None]) -> None:
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
                if self._stopping.is_set():
                    time.sleep(_AWAY_SECONDS)  # to wait for what is set already is no pause
                else:
                    self._stopping.wait(_AWAY_SECONDS)


def _remove(path: Path) -> None:
    """A file or folder of the runner's that the store has."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
