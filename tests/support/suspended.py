"""A suspend, as the clock of leases sees it: for how many seconds the processes of a server slept
stands in a file. Nothing else tells them of it, as nothing tells a laptop's."""

import os
import time
from pathlib import Path
from types import SimpleNamespace

from core import clock

VARIABLE = "SUSPENDED"
"""Names the file."""


def install() -> None:
    """Where this process asks for the seconds since boot, if the variable is set."""
    if VARIABLE in os.environ:
        shifted = SimpleNamespace(
            clock_gettime=_clock_gettime, CLOCK_MONOTONIC=time.CLOCK_MONOTONIC
        )
        setattr(clock, "time", shifted)  # noqa: B010  # to mypy it is a module


def _clock_gettime(which: int) -> float:
    return time.clock_gettime(which) + float(Path(os.environ[VARIABLE]).read_text())
