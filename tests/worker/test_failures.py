"""Whose failure an error is: the job's, its memory's, or the device's."""

import errno

import pytest

from core.errors import DISK_FULL
from worker.failures import failure_of


class OutOfMemoryError(RuntimeError):
    """Torch's, by its name."""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OutOfMemoryError("tried to allocate 2 GiB"), "out_of_memory"),
        (RuntimeError("CUDA error: out of memory"), "out_of_memory"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] can't allocate memory"), "out_of_memory"),
        (MemoryError(), "out_of_memory"),
        (OSError(errno.ENOSPC, "no space"), DISK_FULL),
        (ValueError("out of ideas"), "internal_error"),
    ],
)
def test_it_is_the_jobs(error: Exception, code: str) -> None:
    assert failure_of(error).code == code


def test_it_is_the_devices() -> None:
    """Which no process that has met it can use again."""
    error = RuntimeError("CUDA error: an illegal memory access was encountered")
    with pytest.raises(RuntimeError, match="illegal memory access"):
        failure_of(error)
