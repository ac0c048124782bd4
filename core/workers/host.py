"""Which host and home this is, so that a lock file is only tested where it lies."""

import secrets
import socket
from pathlib import Path

_FILE = "host.id"


def identity(run_path: Path) -> str:
    """The host's name and a number that this home drew once.

    The name alone would take two machines of one image for the same, and each would find the
    other's locks missing.
    """
    path = run_path / _FILE
    try:
        with path.open("x", encoding="ascii") as file:
            file.write(secrets.token_hex(8))
    except FileExistsError:
        pass
    return f"{socket.gethostname()}/{path.read_text(encoding='ascii')}"


def lock_path(run_path: Path, worker_id: str) -> Path:
    """The file that a worker and its runner hold locked for life."""
    return run_path / f"{worker_id}.lock"
