"""Beats: says that this worker lives, brings back what clients asked, and fences when it cannot."""

import logging
import threading
from collections.abc import Callable

from core.clock import boot_seconds
from core.config import Settings
from core.db.engine import Database
from core.errors import Unavailable
from core.workers import service as workers
from core.workers.service import BeatAnswer, Condition
from worker.vital import VitalThread

log = logging.getLogger(__name__)

FENCE_SHARE = 0.75
"""Of a lease: silent for so long, a worker stops before anybody may give its jobs away."""
_AGAIN_SECONDS = 1.0
"""After a beat that failed: the next one may yet come in time."""


class Heartbeat:
    """A thread that beats every ``beat_seconds``, when it is nudged, and soon after a failure."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        worker_id: str,
        *,
        condition: Callable[[], Condition],
        on_answer: Callable[[BeatAnswer], None],
        on_silence: Callable[[], None],
    ) -> None:
        self.database = database
        self.settings = settings
        self.worker_id = worker_id
        self.condition = condition
        self.on_answer = on_answer
        self.on_silence = on_silence
        self._nudged = threading.Event()
        self._stopping = False
        self._thread = VitalThread(self._run, "heartbeat")

    def start(self) -> None:
        self._thread.start()

    def nudge(self) -> None:
        """Beat now: there is something to say."""
        self._nudged.set()

    def stop(self) -> None:
        self._stopping = True
        self._nudged.set()
        self._thread.join()

    def _run(self) -> None:
        heard_at, beat_seconds = boot_seconds(), self.settings.beat_seconds
        while not self._stopping:
            self._nudged.clear()
            pause_seconds = beat_seconds
            try:
                with self.database.write() as session:
                    answer = workers.beat(session, self.worker_id, self.condition())
                heard_at = boot_seconds()
                self.on_answer(answer)
            except Unavailable as error:
                log.warning("cannot beat: %s", error.detail)
                pause_seconds = min(_AGAIN_SECONDS, beat_seconds)
                if boot_seconds() - heard_at > FENCE_SHARE * self.settings.lease_seconds:
                    self.on_silence()
            self._nudged.wait(pause_seconds)
