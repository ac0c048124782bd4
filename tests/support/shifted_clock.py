"""A wall clock that a test sets under running processes: how far off it is stands in a file.

Leases and beats are measured by another clock (``core.clock``), which nobody can set.
"""

import os
import time
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from types import SimpleNamespace

from core import ids
from core.db import models

VARIABLE = "SHIFTED_CLOCK"
"""Names the file, which holds seconds."""


class ShiftedDatetime(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return datetime.now(tz) + timedelta(seconds=_off_seconds())


def install() -> None:
    """Where this process asks what time it is, if the variable is set."""
    if VARIABLE in os.environ:
        setattr(models, "datetime", ShiftedDatetime)  # noqa: B010  # to mypy it is a type
        setattr(ids, "time", SimpleNamespace(time_ns=_time_ns))  # noqa: B010


def _time_ns() -> int:
    return time.time_ns() + int(_off_seconds() * 1e9)


def _off_seconds() -> float:
    return float(Path(os.environ[VARIABLE]).read_text())
