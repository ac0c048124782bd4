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

from core.clock import boot_seconds
from core.files.lock import LockFile
from core.tether import PARENT
from core.workers.chip import Chip
from worker.frames import (
    FROM_RUNNER,
    LAST_WORDS,
    SOCKET,
    Answer,
    Batch,
    Frame,
    Gone,
    GoOn,
    Holds,
    Ready,
    Run,
    Stop,
    Word,
    receive,
    send,
    spoils,
)
from worker.vital import VitalThread

log = logging.getLogger(__name__)

RUNNER = (sys.executable, "-m", "worker.runner")
_BACKOFF_SECONDS = (0.0, 1.0, 5.0, 15.0, 30.0)
_END_SECONDS = 5.0


class Line:
    """What the runner says about one run, to its last word."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._words: queue.Queue[Word] = queue.Queue()

    def put(self, word: Word) -> None:
        self._words.put(word)

    def __iter__(self) -> Iterator[Word]:
        while True:
            word = self._words.get()
            yield word
            if isinstance(word, LAST_WORDS):
                return


class Link:
    """One runner at a time, in a child process that alone loads torch. A dead one is replaced.

    The thread that starts the runner lives as long as the worker: on Linux a child's death signal
    is tied to the thread that made it.
    """

    def __init__(self, lock: LockFile, command: Sequence[str] | None = None) -> None:
        """``on_change`` may be set to hear when the runner gets ready and when it is gone,
        ``on_stderr`` to hear each line that it writes."""
        self.lock = lock
        self.command = command or RUNNER
        self.ready = threading.Event()
        self.on_change: Callable[[], None] = lambda: None
        self.on_stderr: Callable[[str], None] = lambda _: None
        self.early_deaths = 0
        """Runners in a row that ended before they were ready."""
        self._resident: list[str] = []
        self._chip: Chip | None = None
        self._go_on_until = float("inf")
        self._count = 0
        self._lines: dict[int, Line] = {}
        """Of the runs that have not ended."""
        self._lock = threading.Lock()
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
        return self._resident if self.ready.is_set() else []

    @property
    def goes_on(self) -> bool:
        """Whether the last ``go_on`` still reaches: past it, a runner stops at its next step."""
        return boot_seconds() < self._go_on_until

    def start(self) -> None:
        self._thread.start()

    def go_on(self, seconds: float) -> None:
        """Lets the runner work for so long, unless it is told again."""
        self._go_on_until = boot_seconds() + seconds  # before the runner's own, which begins later
        with self._lock:
            self._send(GoOn(seconds=seconds))

    def run(self, *runs: Run) -> list[Line]:
        """Gives the runner what it is to do next, all at once; a line for each, in order."""
        with self._lock:
            first = self._count + 1
            self._count += len(runs)
            numbered = [
                run.model_copy(update={"run": number}) for number, run in enumerate(runs, first)
            ]
            lines = [Line(run.run) for run in numbered]
            self._lines = {line.number: line for line in lines}
            if self._socket is None:
                self._end_all(Gone(exit_code=0, killed_by_us=False))
            self._send(Batch(runs=numbered))
        return lines

    def stop(self, line: Line, *, save: bool) -> None:
        """Asks the runner to end that run at its next step, and to ``save`` it first if it is to go
        on later. Repeating is harmless, and so is coming late."""
        with self._lock:
            self._send(Stop(run=line.number, save=save))

    def kill(self, line: Line | None = None) -> None:
        """Ends the runner now, but only if ``line`` has not ended. What it runs hears ``Gone``; a
        fresh runner is started."""
        with self._lock:
            if line is not None and line.number not in self._lines:
                return
            self._kill()

    def fence(self) -> None:
        """Ends the runner if it is at anything, which may be another's before long."""
        with self._lock:
            if self._lines:
                self._kill()

    def _kill(self) -> None:
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
            self._kill()
            self._thread.join(_END_SECONDS)

    def _send(self, frame: Frame) -> None:
        """Silently nothing when the runner is gone: whoever listens hears ``Gone``."""
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
            self._killed, self._resident = False, []
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
            with self._lock:
                self._socket = None
                self._end_all(Gone(exit_code=exit_code, killed_by_us=self._killed))
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
                    self.on_stderr(line)
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
                case Holds(bases=bases):
                    self._resident = bases
                case Answer(run=number, word=word):
                    if spoils(word):
                        self.ready.clear()  # before anybody can give it another job
                    self._pass_on(number, word)
        return was_ready

    def _pass_on(self, number: int, word: Word) -> None:
        with self._lock:
            line = self._lines.get(number)
            if line is None:
                return
            if isinstance(word, LAST_WORDS):
                del self._lines[number]
            line.put(word)

    def _end_all(self, word: Gone) -> None:
        for line in self._lines.values():
            line.put(word)
        self._lines = {}

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
