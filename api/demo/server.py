"""The demo's own server: a supervisor as a child, on a free port, ended whatever happens."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from api import launch
from api.client import Client, ClientError
from api.commands.terminal import short
from core.config import Settings

START_SECONDS = 120.0
"""A first start imports torch and builds the small base models: half a minute on two cores."""
STOP_SECONDS = 30.0
"""More than the 20 s in which a server ends by its own promise."""
TAIL_LINES = 12


class ServerTrouble(ClientError):
    """It did not start, or ended while it was needed."""


@contextmanager
def serving(settings: Settings) -> Iterator[Client]:
    """A client of a server that is ready. The server has ended when the block has."""
    settings.prepare()
    log = settings.root / "demo.log"
    port = _free_port()
    with log.open("wb") as file:
        server = subprocess.Popen(
            launch.command("worker.supervisor"),
            env=_environment(settings, port),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            process_group=0,  # Ctrl-C is ours to hear; we pass on one SIGTERM
        )
    try:
        with _blaming(server, log):
            key = _key_once_ready(server, f"http://127.0.0.1:{port}", settings, log)
            with Client(f"http://127.0.0.1:{port}", key, patience_seconds=0) as client:
                yield client
    finally:
        _end(server)


def _environment(settings: Settings, port: int) -> dict[str, str]:
    """Everything embedded: a demo leaves another installation's database and store alone."""
    return launch.environment(
        home=settings.root,
        host="127.0.0.1",
        port=port,
        database_url="",
        broker_url="",
        store_url="",
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _blaming(server: subprocess.Popen[bytes], log: Path) -> Iterator[None]:
    """When a call fails because the server has died, says that, with its last words."""
    try:
        yield
    except ServerTrouble:
        raise
    except ClientError as error:
        if server.poll() is None:
            raise
        raise ServerTrouble(_last_words(server, log)) from error


def _key_once_ready(
    server: subprocess.Popen[bytes], url: str, settings: Settings, log: Path
) -> str:
    deadline = time.monotonic() + START_SECONDS
    with Client(url) as client:
        while not _is_ready(client):
            if server.poll() is not None:
                raise ServerTrouble(_last_words(server, log))
            if time.monotonic() > deadline:
                raise ServerTrouble(
                    f"The server was not ready after {START_SECONDS:.0f} s. {_tail(log)}"
                )
            time.sleep(0.1)
    return settings.admin_key_path.read_text(encoding="utf-8").strip()


def _is_ready(client: Client) -> bool:
    try:
        client.readyz()
    except ClientError:
        return False
    return True


def _last_words(server: subprocess.Popen[bytes], log: Path) -> str:
    return f"The server ended early, with exit code {server.returncode}. {_tail(log)}"


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    if not lines:
        return f"Its log, {short(log)}, is empty."
    return "\n  ".join([f"Its log, {short(log)}, ends:", *lines[-TAIL_LINES:]])


def _end(server: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and time to end well; SIGKILL to the group when it will not or may not."""
    server.terminate()
    try:
        server.wait(STOP_SECONDS)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
