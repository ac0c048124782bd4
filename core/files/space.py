"""Room on a disk, and the ways in which libraries say that there is none."""

import errno
import shutil
from pathlib import Path

_SIGNS = ("No space left on device", "database or disk is full", "Disk quota exceeded")


def is_full_disk(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return any(sign in str(error) for sign in _SIGNS)


def free_bytes(path: Path) -> int:
    return shutil.disk_usage(path).free
