"""A lock file: held for life by one process and its children, free the moment they are dead."""

import fcntl
import os
from pathlib import Path
from typing import Self


class LockFile:
    """An exclusive ``flock``: the kernel lets go when the last holder dies, even by kill -9."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor
        """To hand to a child, so that the lock stays held until it is dead too."""

    @classmethod
    def take(cls, path: Path) -> Self | None:
        """The lock, or None while somebody holds it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return cls(path, descriptor)

    def release(self) -> None:
        os.close(self.descriptor)


def is_held(path: Path) -> bool:
    """Whether a live process holds it. A file that is not there is held by nobody."""
    if not path.exists():
        return False
    lock = LockFile.take(path)
    if lock is None:
        return True
    lock.release()
    return False
