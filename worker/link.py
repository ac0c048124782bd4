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
from collections.abc import Callable, Iterator

from core.config import Settings
from core.files.lock import LockFile
from core.tether import PARENT
from worker.frames import FROM_RUNNER, Frame, FromRunner, Gone, Ready, Run, receive, send

log = logging.getLogger(__name__)

SOCKET = "STILLROOM_RUNNER_SOCKET"
_BACKOFF_SECONDS = (0.0, 1.0, 5.0, 15.0, 30.0)
_END_SECONDS = 5.0


class Link:
    """One runner at a time, in a child process that alone loads torch. A dead one is replaced.

    The thread that starts the runner lives as long as the worker: on Linux a child's death signal
    is tied to the thread that made it.
    """

    def __init__(self, settings: Settings, lock: LockFile, on_ready: Callable[[], None]) -> None:
        self.settings = settings
        self.lock = lock
        self.on_ready = on_ready
        self.ready = threading.Event()
        self._frames: queue.Queue[FromRunner] = queue.Queue()
        self._closing = threading.Event()
        self._sending = threading.Lock()
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep, name="link", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def send(self, frame: Frame) -> None:
        """Silently nothing when the runner is gone: whoever listens hears ``Gone``."""
        with self._sending, contextlib.suppress(OSError):
            if self._socket is not None:
                send(self._socket, frame)

    def run(self, run: Run) -> Iterator[FromRunner]:
        """Gives the runner a job and yields what it says, to its last word on it."""
        with self._sending:
            self._frames = queue.Queue()  # whatever was said before belongs to another job
            if self._socket is None:
                self._frames.put(Gone(exit_code=0))
        self.send(run)
        while True:
            frame = self._frames.get()
            yield frame
            if frame.type in ("done", "failed", "stopped", "gone"):
                return

    def kill(self) -> None:
        """Ends the runner now. Its job, if any, hears ``Gone``; a fresh runner is started."""
        self.ready.clear()
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """Ends the runner and starts no other."""
        self._closing.set()
        self.ready.clear()
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(_END_SECONDS)
        if self._thread.is_alive():
            self.kill()
            self._thread.join(_END_SECONDS)

    def _keep(self) -> None:
        early_deaths = 0
        while not self._closing.is_set():
            was_ready = self._live_once()
            early_deaths = 0 if was_ready else early_deaths + 1
            pause_seconds = _BACKOFF_SECONDS[min(early_deaths, len(_BACKOFF_SECONDS) - 1)]
            self._closing.wait(pause_seconds)

    def _live_once(self) -> bool:
        """One runner from start to end; whether it ever got ready."""
        ours, theirs = socket.socketpair()
        with ours:
            started = time.monotonic()
            self._process = self._spawn(theirs)
            theirs.close()
            self._socket = ours
            was_ready = False
            while (body := receive(ours)) is not None:
                frame = FROM_RUNNER.validate_json(body)
                if isinstance(frame, Ready):
                    log.info("runner ready after %.1f s", time.monotonic() - started)
                    was_ready = True
                    self.ready.set()
                    self.on_ready()
                else:
                    self._frames.put(frame)
            self.ready.clear()
            exit_code = self._reap(self._process)
            with self._sending:
                self._socket = None
                self._frames.put(Gone(exit_code=exit_code))
        if not self._closing.is_set():
            log.warning("runner ended with exit code %d", exit_code)
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
            [sys.executable, "-m", "worker.runner"],
            env=environment,
            pass_fds=(theirs.fileno(), self.lock.descriptor),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _reap(self, process: "subprocess.Popen[bytes]") -> int:
        try:
            return process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            return process.wait()
