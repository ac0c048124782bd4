"""What a runner says of an error that a recipe ended with."""

import logging

from core.errors import DISK_FULL, OutOfMemory, ServiceError
from core.files.space import is_full_disk
from core.full_memory import is_full_memory
from worker.frames import Failed

log = logging.getLogger(__name__)


def failure_of(error: Exception) -> Failed:
    """What is told of it; raised again where the device failed and not the job."""
    if isinstance(error, OutOfMemory):
        return Failed(code=error.code, detail=error.detail, next_rung=error.next_rung)
    if isinstance(error, ServiceError):
        return Failed(code=error.code, detail=error.detail)
    if sticks(error):
        raise error
    if is_full_memory(error):
        return _out_of_memory()
    if is_full_disk(error):
        return Failed(code=DISK_FULL, detail="The worker's disk is full.")
    log.error("the recipe failed", exc_info=error)
    return Failed(
        code="internal_error",
        detail="The job met an error of Stillroom's own. The worker's log names it.",
    )


def sticks(error: Exception) -> bool:
    """Whether the device failed and not the job: after such an error of CUDA's nothing in this
    process can use it again. The process ends, and the job is tried in another."""
    names_device = type(error).__name__ == "AcceleratorError" or "CUDA error" in str(error)
    return names_device and not is_full_memory(error)


def _out_of_memory() -> Failed:
    return Failed(
        code="out_of_memory",
        detail="The device's memory did not hold this job: ask for fewer pixels or a smaller "
        "batch, and leave `gradient_checkpointing` to auto.",
    )
