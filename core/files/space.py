"""Room on a disk, and the ways in which libraries say that there is none."""

import errno
import shutil
from pathlib import Path

from core.errors import Conflict

_SIGNS = ("No space left on device", "database or disk is full", "Disk quota exceeded")


def is_full_disk(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return any(sign in str(error) for sign in _SIGNS)


def free_bytes(path: Path) -> int:
    return shutil.disk_usage(path).free


def require_room(folder: Path, needed_bytes: int) -> None:
    """Raises Conflict where the disk of ``folder`` has less."""
    free = free_bytes(folder)
    if needed_bytes > free:
        raise Conflict(
            f"{needed_bytes / 1e9:.2f} GB are to come and {free / 1e9:.2f} GB are free on the disk "
            f"of {folder}. Make room or move STILLROOM_HOME.",
            code="disk_full",
        )
