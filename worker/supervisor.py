"""`stillroom serve`: the API and one worker a device, restarted with a pause, ended together."""

import argparse
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from types import FrameType

from core import log as logs
from core.config import Settings
from core.db import migrate
from core.errors import WrongRevision
from core.files.lock import LockFile
from core.files.mounts import is_network_mount
from core.tether import PARENT, die_with_parent
from worker import device
from worker.device import Device
from worker.device_lock import DeviceLock, DeviceTaken

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.1
_PAUSES_SECONDS = (0.0, 1.0, 2.0, 5.0, 15.0, 30.0)
_STEADY_SECONDS = 60.0
"""A child that lived so long starts with a clean record when it dies."""


@dataclass
class Child:
    """One process that shall always be there."""

    name: str
    command: list[str]
    environment: dict[str, str]
    process: "subprocess.Popen[bytes] | None" = None
    deaths: int = 0
    started_at: float = 0.0
    start_again_at: float = field(default_factory=time.monotonic)

    def tend(self) -> None:
        """Notices its death, and starts it when it is due."""
        at = time.monotonic()
        if self.process is not None and (code := self.process.poll()) is not None:
            self.deaths = 0 if at - self.started_at > _STEADY_SECONDS else self.deaths + 1
            pause_seconds = _PAUSES_SECONDS[min(self.deaths, len(_PAUSES_SECONDS) - 1)]
            log.error("%s ended with exit code %d", self.name, code)
            self.process, self.start_again_at = None, at + pause_seconds
        if self.process is None and at >= self.start_again_at:
            self.started_at = at
            self.process = subprocess.Popen(
                self.command,
                env={**os.environ, PARENT: str(os.getpid()), **self.environment},
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # only the supervisor hears Ctrl-C
            )

    def signal(self, number: int) -> None:
        if self.process is not None:
            self.process.send_signal(number)

    def has_ended(self) -> bool:
        return self.process is None or self.process.poll() is not None


class Supervisor:
    """Keeps its children until a signal comes; a second signal, or the grace time, kills."""

    def __init__(self, children: list[Child], grace_seconds: float) -> None:
        self.children = children
        self.grace_seconds = grace_seconds
        self._signals = 0

    def run(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._hear)
        while not self._signals:
            for child in self.children:
                child.tend()
            time.sleep(_LOOK_SECONDS)
        self._end()

    def _hear(self, _number: int, _frame: FrameType | None) -> None:
        self._signals += 1

    def _end(self) -> None:
        log.info("ending: running jobs go back to the queue")
        deadline = time.monotonic() + self.grace_seconds - 1.0
        for child in self.children:
            child.signal(signal.SIGTERM)
        while not all(child.has_ended() for child in self.children):
            if self._signals > 1 or time.monotonic() > deadline:
                log.warning("not waiting any longer")
                break
            time.sleep(_LOOK_SECONDS)
        for child in self.children:
            child.signal(signal.SIGKILL)
            if child.process is not None:
                child.process.wait()


def api_child() -> Child:
    return Child("api", [sys.executable, "-m", "api"], {})


def worker_child(pinned: Device) -> Child:
    return Child(f"worker {pinned.name}", [sys.executable, "-m", "worker"], pinned.environment())


def main() -> None:
    os.umask(0o077)  # what is in the home is this user's alone
    die_with_parent()
    parser = argparse.ArgumentParser(prog="python -m worker.supervisor", description=__doc__)
    parser.add_argument("--workers-only", action="store_true", help="no API: a further host")
    workers_only = parser.parse_args().workers_only
    if find_spec("torch") is None:
        sys.exit(
            "A worker needs PyTorch, which is not installed here: install `stillroom[worker]`. The "
            "API alone, `stillroom api`, does without."
        )
    settings = Settings()
    logs.configure(settings.log_level)
    try:
        devices = device.parse(settings.devices)
    except ValueError as error:
        sys.exit(f"STILLROOM_DEVICES: {error}")
    settings.prepare()
    lock = None if workers_only else _take_home(settings)
    if not settings.database_url and is_network_mount(settings.root):
        sys.exit(
            f"{settings.root} is on a network file system, where SQLite's log does not work: set "
            "STILLROOM_HOME to a local disk, or STILLROOM_DATABASE_URL to PostgreSQL."
        )
    try:
        migrate.upgrade(settings.effective_database_url)
    except WrongRevision as error:
        sys.exit(error.detail)
    _refuse_taken(settings, devices)
    children = [] if workers_only else [api_child()]
    children += [worker_child(pinned) for pinned in devices]
    Supervisor(children, settings.grace_seconds).run()
    if lock is not None:
        lock.release()


def _take_home(settings: Settings) -> LockFile:
    lock = LockFile.take(settings.run_path / "supervisor.lock")
    if lock is None:
        sys.exit(
            f"Another `stillroom serve` runs on {settings.root}: end it first, or give this one "
            "its own --home."
        )
    return lock


def _refuse_taken(settings: Settings, devices: list[Device]) -> None:
    """A worker could say so too, but only to be started again and again."""
    try:
        for pinned in devices:
            DeviceLock.take(settings, pinned).release()
    except DeviceTaken as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
