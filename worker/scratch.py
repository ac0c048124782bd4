"""Folders for the time of an attempt, one room a worker; what dead workers left is taken away."""

import shutil
from pathlib import Path

from core.files.lock import is_held
from core.workers.host import lock_path


def room_of(scratch_path: Path, worker_id: str) -> Path:
    """Where this worker's attempts have their folders."""
    room = scratch_path / worker_id
    room.mkdir(mode=0o700, exist_ok=True)
    return room


def sweep(scratch_path: Path, run_path: Path) -> None:
    """Takes away the rooms of workers that live no longer."""
    for room in scratch_path.glob("wrk_*"):
        if not is_held(lock_path(run_path, room.name)):
            shutil.rmtree(room, ignore_errors=True)
