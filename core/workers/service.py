"""Workers: who they are, that they live, and what their disks hold."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Row, delete, select, update
from sqlalchemy.orm import Session

from core.db.models import Job, Worker
from core.jobs.states import Wish

RUNNING = "running"
"""The one state of a job that concerns its worker."""


@dataclass(frozen=True)
class Chip:
    """What a worker computes on; ``memory_bytes`` in all, None where nobody can tell."""

    name: str
    memory_bytes: int | None


@dataclass(frozen=True)
class BeatAnswer:
    """What a beat brings back: whether the worker is still known, and what clients want of its
    jobs."""

    known: bool
    wishes: Mapping[str, Wish]


def lock_path(run_path: Path, worker_id: str) -> Path:
    """The file that a worker and its runner hold locked for life."""
    return run_path / f"{worker_id}.lock"


def register(
    session: Session,
    *,
    worker_id: str,
    host: str,
    pid: int,
    device: str,
    role: str,
    bases: list[str],
) -> Worker:
    worker = Worker(
        id=worker_id,
        host=host,
        pid=pid,
        device=device,
        role=role,
        bases=bases,
    )
    session.add(worker)
    session.flush()
    return worker


def beat(session: Session, worker_id: str, *, chip: Chip | None, bases: list[str]) -> BeatAnswer:
    """Raises the worker's counter and those of all its jobs, in one statement each.

    ``chip``: what its runner found, None while that loads. ``bases``: what its disk holds now.
    """
    found = {"chip": chip.name, "memory_bytes": chip.memory_bytes} if chip else {}
    known = session.scalar(
        update(Worker)
        .where(Worker.id == worker_id)
        .values(beat=Worker.beat + 1, ready=chip is not None, bases=bases, **found)
        .returning(Worker.id)
    )
    rows = session.execute(
        update(Job)
        .where(Job.worker_id == worker_id, Job.state == RUNNING)
        .values(beat=Job.beat + 1)
        .returning(Job.id, Job.cancel_requested, Job.pause_requested)
    )
    return BeatAnswer(known is not None, _wishes(rows))


def wishes(session: Session, worker_id: str) -> Mapping[str, Wish]:
    """What clients want of its running jobs; a look that writes nothing."""
    rows = session.execute(
        select(Job.id, Job.cancel_requested, Job.pause_requested).where(
            Job.worker_id == worker_id, Job.state == RUNNING
        )
    )
    return _wishes(rows)


def wish(cancelled: bool, paused: bool) -> Wish | None:
    """Of the two requests that a row may carry, the one that counts."""
    return "cancel" if cancelled else "pause" if paused else None


def _wishes(rows: Iterable[Row[str, bool, bool]]) -> dict[str, Wish]:
    told = {job_id: wish(cancelled, paused) for job_id, cancelled, paused in rows}
    return {job_id: wanted for job_id, wanted in told.items() if wanted}


def forget(session: Session, worker_id: str, beat: int) -> bool:
    """Takes the row away, unless it beat since ``beat`` was read: then it lives, and False."""
    return bool(
        session.scalar(
            delete(Worker).where(Worker.id == worker_id, Worker.beat == beat).returning(Worker.id)
        )
    )


def sign_off(session: Session, worker_id: str) -> None:
    """A worker that ends well takes its own row away."""
    session.execute(delete(Worker).where(Worker.id == worker_id))


def live_workers(session: Session) -> list[Worker]:
    """Those that are ready for jobs. The reaper takes away the rows of the dead."""
    return list(session.scalars(select(Worker).where(Worker.ready).order_by(Worker.id)))


def bases_on_workers(session: Session) -> set[str]:
    return {base for worker in live_workers(session) for base in worker.bases}
