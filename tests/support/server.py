"""A real server: supervisor, API, worker and runner as processes of their own, on a real socket."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from api.client import Client, ClientError
from core.config import Settings
from core.db.engine import Database
from core.workers import service as workers

QUICK = {"STILLROOM_BEAT_SECONDS": "0.5"}
SILENT = {"STILLROOM_LEASE_SECONDS": "3"}
"""Where a worker that fell silent is to be found in seconds. Elsewhere the lease is long: on a busy
machine one that is merely slow would be given up, too."""

START_SECONDS = 120.0
SUPERVISOR = "worker.supervisor"
LIGHT = "tests.support.light_supervisor"
"""The same, with a runner that has no torch: a worker is there in a second."""


class Server:
    """What a test may do to a running server beside speaking HTTP with it."""

    def __init__(
        self, home: Path, port: int, environment: dict[str, str], supervisor: str = SUPERVISOR
    ) -> None:
        self.supervisor = supervisor
        self.settings = Settings(home=home, port=port)
        self.url = f"http://127.0.0.1:{port}"
        self.environment = environment
        self.process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        log = (self.settings.root.parent / "server.log").open("ab")
        with log:
            return subprocess.Popen(
                [sys.executable, "-m", self.supervisor],
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,  # a test may send Ctrl-C, as a terminal does
            )

    def start_again(self) -> None:
        self.start()
        self.wait_until_ready()

    def start(self) -> None:
        self.process = self._start()

    def wait_until_ready(self) -> None:
        with Client(self.url) as probe:
            wait_until(lambda: self._answers(probe), START_SECONDS, "the server is ready")

    def _answers(self, probe: Client) -> bool:
        assert self.process.poll() is None, self.log()
        try:
            probe.readyz()
        except ClientError:
            return False
        return True

    def client(self, key: str | None = None) -> Client:
        return Client(self.url, key or self.settings.admin_key_path.read_text().strip())

    def worker_pid(self) -> int:
        database = Database.of(self.settings)
        with database.read() as session:
            (worker,) = workers.live_workers(session)
        database.dispose()
        return worker.pid

    def runner_pid(self) -> int:
        (runner,) = children_of(self.worker_pid())
        return runner

    def log(self) -> str:
        return (self.settings.root.parent / "server.log").read_text(errors="replace")

    def end(self) -> int:
        """SIGTERM; how it ended."""
        self.process.terminate()
        return self.process.wait(30)


@contextmanager
def running(home: Path, supervisor: str = SUPERVISOR, **environment: str) -> Iterator[Server]:
    home.parent.mkdir(parents=True, exist_ok=True)
    port = free_port()
    server = Server(
        home,
        port,
        {
            "STILLROOM_HOME": str(home),
            "STILLROOM_PORT": str(port),
            "STILLROOM_DEVICES": "cpu",
            "OMP_NUM_THREADS": "1",
            **QUICK,
            **environment,
        },
        supervisor,
    )
    try:
        server.wait_until_ready()
        yield server
    finally:
        if server.process.poll() is None:
            server.end()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(holds: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"after {seconds} s it does not hold that {what}"
        time.sleep(0.02)


def children_of(pid: int) -> list[int]:
    children: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            children += map(int, (task / "children").read_text().split())
    return children


def descendants_of(pid: int) -> list[int]:
    children = children_of(pid)
    return children + [each for child in children for each in descendants_of(child)]


def command_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def is_running(pid: int) -> bool:
    """A zombie that nobody waits for has ended all the same."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rsplit(")", 1)[1].split()[0] != "Z"
