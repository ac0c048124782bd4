"""Rooms of dead workers are swept; what the living have in theirs is left alone."""

from core.config import Settings
from core.files.lock import LockFile
from core.workers.host import lock_path
from worker import scratch


def test_only_rooms_of_the_dead_are_swept(settings: Settings) -> None:
    lock = LockFile.take(lock_path(settings.run_path, "wrk_alive"))
    assert lock is not None
    for worker_id in ("wrk_alive", "wrk_dead", "wrk_unknown"):
        room = scratch.room_of(settings.scratch_path, worker_id)
        (room / "job_1-x").mkdir()
        (room / "job_1-x" / "file").write_bytes(b"x")
        assert scratch.room_of(settings.scratch_path, worker_id) == room  # and stays as it is
    lock_path(settings.run_path, "wrk_dead").touch()  # nobody holds it any more
    (settings.scratch_path / "an upload").touch()
    scratch.sweep(settings.scratch_path, settings.run_path)
    left = {path.name for path in settings.scratch_path.iterdir()}
    assert left == {"wrk_alive", "an upload"}
    assert (settings.scratch_path / "wrk_alive" / "job_1-x" / "file").read_bytes() == b"x"
    lock.release()


def test_a_room_is_its_owners_alone(settings: Settings) -> None:
    room = scratch.room_of(settings.scratch_path, "wrk_1")
    assert room.stat().st_mode & 0o777 == 0o700
