"""The worker's end of the line to its runner: starts it, keeps it, hears it, ends it."""

import contextlib
import logging
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from core.files.lock import LockFile
from core.tether import PARENT
from core.workers.service import Chip
from worker.frames import (
    FROM_RUNNER,
    LAST_WORDS,
    Answer,
    Frame,
    Gone,
    Ready,
    Run,
    Stop,
    Word,
    receive,
    send,
    spoils,
)
from worker.tail import Tail
from worker.vital import VitalThread

log = logging.getLogger(__name__)

SOCKET = "STILLROOM_RUNNER_SOCKET"
RUNNER = (sys.executable, "-m", "worker.runner")
_BACKOFF_SECONDS = (0.0, 1.0, 5.0, 15.0, 30.0)
_END_SECONDS = 5.0


class Link:
    """One runner at a time, in a child process that alone loads torch. A dead one is replaced.

    The thread that starts the runner lives as long as the worker: on Linux a child's death signal
    is tied to the thread that made it.
    """

    def __init__(
        self, lock: LockFile, on_change: Callable[[], None], command: Sequence[str] | None = None
    ) -> None:
        """``on_change`` is called when the runner gets ready and when it is gone."""
        self.lock = lock
        self.on_change = on_change
        self.command = command or RUNNER
        self.ready = threading.Event()
        self.tail = Tail()
        self.early_deaths = 0
        """Runners in a row that ended before they were ready."""
        self._base: str | None = None
        self._chip: Chip | None = None
        self._run = 0
        self._words: queue.Queue[Word] = queue.Queue()
        self._line = threading.Lock()
        self._closing = threading.Event()
        self._killed = False
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = VitalThread(self._keep, "link")

    @property
    def chip(self) -> Chip | None:
        """What the runner computes on; None while there is no runner that is ready."""
        return self._chip if self.ready.is_set() else None

    @property
    def resident(self) -> list[str]:
        """Bases that the runner holds in memory."""
        return [self._base] if self._base and self.ready.is_set() else []

    def start(self) -> None:
        self._thread.start()

    def send(self, frame: Frame) -> None:
        """Silently nothing when the runner is gone: whoever listens hears ``Gone``."""
        with self._line:
            self._send(frame)

    def run(self, run: Run) -> Iterator[Word]:
        """Gives the runner a job and yields what it says about it, to its last word."""
        with self._line:
            self._run += 1
            self._words = queue.Queue()
            self._base = run.base.id
            if self._socket is None:
                self._words.put(Gone(exit_code=0, killed_by_us=False))
            self._send(run.model_copy(update={"run": self._run}))
        while True:
            word = self._words.get()
            yield word
            if isinstance(word, LAST_WORDS):
                return

    def stop(self, *, save: bool) -> None:
        """Asks the runner to end what it was given last at the next step, and to ``save`` it first
        if it is to go on later. Repeating is harmless."""
        with self._line:
            self._send(Stop(run=self._run, save=save))

    def kill(self) -> None:
        """Ends the runner now. Its job, if any, hears ``Gone``; a fresh runner is started."""
        self.ready.clear()
        self._killed = True
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """Ends the runner and starts no other."""
        self._closing.set()
        self.ready.clear()
        self._killed = True  # if it runs something still, that is not to blame for its end
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(_END_SECONDS)
        if self._thread.is_alive():
            self.kill()
            self._thread.join(_END_SECONDS)

    def _send(self, frame: Frame) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                send(self._socket, frame)

    def _keep(self) -> None:
        while not self._closing.is_set():
            self._live_once()
            pause_seconds = _BACKOFF_SECONDS[min(self.early_deaths, len(_BACKOFF_SECONDS) - 1)]
            self._closing.wait(pause_seconds)

    def _live_once(self) -> None:
        """One runner from start to end."""
        ours, theirs = socket.socketpair()
        with ours:
            self._killed, self._base = False, None
            self._process = self._spawn(theirs)
            theirs.close()
            reading = self._read_stderr(self._process)
            self._socket = ours
            was_ready = self._listen(ours)
            self.ready.clear()
            exit_code = self._reap(self._process)
            reading.join(_END_SECONDS)
            if was_ready:
                self.early_deaths = 0
            elif not self._killed:
                self.early_deaths += 1
            with self._line:
                self._socket = None
                self._words.put(Gone(exit_code=exit_code, killed_by_us=self._killed))
        if not self._closing.is_set():
            log.warning("runner ended with exit code %d", exit_code)
            self.on_change()

    def _read_stderr(self, process: "subprocess.Popen[bytes]") -> threading.Thread:
        """Passes on what the runner writes, and keeps the end of it."""

        def read() -> None:
            assert process.stderr is not None
            with process.stderr as lines:
                for raw in lines:
                    line = raw.decode(errors="replace")
                    self.tail.hear(line)
                    with contextlib.suppress(OSError):
                        sys.stderr.write(line)
                        sys.stderr.flush()

        thread = threading.Thread(target=read, name="stderr", daemon=True)
        thread.start()
        return thread

    def _listen(self, ours: socket.socket) -> bool:
        """Hears the runner until it is gone; whether it ever got ready."""
        started = time.monotonic()
        was_ready = False
        while (body := receive(ours)) is not None:
            match FROM_RUNNER.validate_json(body):
                case Ready(chip=name, memory_bytes=memory_bytes):
                    log.info("runner ready after %.1f s", time.monotonic() - started)
                    was_ready = True
                    self._chip = Chip(name, memory_bytes)
                    self.ready.set()
                    self.on_change()
                case Answer(run=run, word=word):
                    if spoils(word):
                        self.ready.clear()  # before anybody can give it another job
                    with self._line:
                        if run == self._run:
                            self._words.put(word)
        return was_ready

    def _spawn(self, theirs: socket.socket) -> "subprocess.Popen[bytes]":
        environment = {
            **os.environ,
            SOCKET: str(theirs.fileno()),
            PARENT: str(os.getpid()),
            "PYTHONSAFEPATH": "1",
            "TRANSFORMERS_VERBOSITY": "error",  # it asks for torchvision, which we do not need
        }
        return subprocess.Popen(
            self.command,
            env=environment,
            pass_fds=(theirs.fileno(), self.lock.descriptor),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def _reap(self, process: "subprocess.Popen[bytes]") -> int:
        try:
            return process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            return process.wait()
