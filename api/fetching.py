"""A download that goes on where it broke off, in this process or in the next."""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from io import BufferedRandom
from pathlib import Path

from api.client_errors import BrokenConnection, ClientError, DamagedDownload, is_worth_waiting
from core.files.atomic import sync
from core.files.lock import LockFile

PAUSE_SECONDS = 0.25
"""Before what broke off is asked for again."""

Part = tuple[int, Iterator[bytes]]
"""The byte that an answer begins with, and what comes from there on."""
Open = Callable[[int], AbstractContextManager[Part]]
"""Asks for a file from a byte on. The server may begin earlier."""


def fetch(
    opened: Open,
    path: Path,
    *,
    sha256: str,
    patience_seconds: float,
    tell: Callable[[int], None],
) -> None:
    """Puts the file at ``path`` once all of it is there and has that hash.

    Until then it lies beside, and stays there when the connection is gone for good: the next call
    begins with its end. ``tell`` hears how many bytes are there.

    Raises:
        NoAnswer: the server is not there, or the connection broke and it was away for longer than
            ``patience_seconds``.
        DamagedDownload: the bytes have another hash; nothing is kept.
        ClientError: somebody else is fetching it to the same place.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # without its name, which may be as long as names can be
    aside = path.with_name(f".{sha256[:16]}.part")
    lock = LockFile.take(aside)
    if lock is None:
        raise ClientError(f"{path.name} is being fetched to the same place by another command.")
    try:
        with aside.open("r+b") as file:
            found = _complete(opened, file, patience_seconds, tell)
        if found != sha256:
            aside.unlink()
            raise DamagedDownload(
                f"{path.name} arrived damaged: its SHA-256 is {found}, the server says {sha256}. "
                "Nothing was kept; try again."
            )
        sync(aside)
        os.replace(aside, path)
        sync(path.parent)
    finally:
        if aside.exists() and not aside.stat().st_size:
            aside.unlink()
        lock.release()


def _complete(
    opened: Open, file: BufferedRandom, patience_seconds: float, tell: Callable[[int], None]
) -> str:
    """Fetches what is missing of ``file``; the hash of all of it."""
    digest = hashlib.file_digest(file, "sha256")
    broke = None
    while True:
        have = file.tell()
        try:
            with opened(have) as (begin, chunks):
                if begin != have:  # the server has it anew, or gives it whole
                    digest = hashlib.sha256()
                    file.seek(begin)
                    file.truncate()
                for chunk in chunks:
                    digest.update(chunk)
                    file.write(chunk)
                    tell(file.tell())
                    broke = None
            return digest.hexdigest()
        except ClientError as error:
            file.flush()
            if broke is None and isinstance(error, BrokenConnection):
                broke = time.monotonic()
            if not is_worth_waiting(error, broke, patience_seconds):
                raise
            time.sleep(PAUSE_SECONDS)
