"""Folders that go: first out of sight, so that what has its name is whole, then in fact."""

import shutil
import time
from contextlib import suppress
from pathlib import Path

from core.ids import new_id

ABANDONED_SECONDS = 24 * 3600.0
"""After which a folder that is being filled, with a dot before its name, is of one who has died."""
_GOING = ".going-"


def discard(folder: Path) -> None:
    """Others may discard it too, or may have."""
    going = folder.with_name(f"{_GOING}{new_id('art')}")
    with suppress(FileNotFoundError):
        folder.rename(going)
        shutil.rmtree(going, ignore_errors=True)


def sweep(shared: Path) -> None:
    """Takes away what somebody who died was discarding below ``shared``, or filling."""
    for folder in shared.glob(".*"):
        with suppress(FileNotFoundError):
            age_seconds = time.time() - folder.stat().st_mtime
            if folder.name.startswith(_GOING) or age_seconds > ABANDONED_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
