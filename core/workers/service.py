"""Workers: who they are, that they live, and what their disks hold."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Row, delete, select, update
from sqlalchemy.orm import Session

from core.db.models import Device, Job, Worker, is_running, now
from core.jobs.states import Wish
from core.workers import devices
from core.workers.chip import Chip


@dataclass(frozen=True)
class BeatAnswer:
    """What a beat brings back: whether the worker is still known, and what clients want of its
    jobs."""

    known: bool
    wishes: Mapping[str, Wish]


@dataclass(frozen=True)
class Condition:
    """What a worker tells of itself with each beat.

    ``chip``: what its runner found, None while that loads. ``bases``: what its disk holds now;
    ``resident``: what its runner holds in memory, bases and artifacts that stand in for one.
    ``jobs``: what it runs.
    """

    chip: Chip | None
    bases: Sequence[str]
    resident: Sequence[str] = ()
    jobs: Sequence[str] = ()


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
    device_id = devices.id_of(host, device)
    devices.ensure(session, device_id)
    worker = Worker(
        id=worker_id,
        host=host,
        pid=pid,
        device=device,
        device_id=device_id,
        role=role,
        bases=bases,
    )
    session.add(worker)
    session.flush()
    return worker


def beat(session: Session, worker_id: str, condition: Condition) -> BeatAnswer:
    """Raises the worker's counter and those of the jobs it runs, in one statement each.

    Of another job that the database holds to be its own nobody looks after, as when a claim was
    committed and its answer got lost: that counter stands still, and the reaper gives it back.
    """
    chip = condition.chip
    found = {"chip": chip.name, "memory_bytes": chip.memory_bytes} if chip else {}
    known = session.scalar(
        update(Worker)
        .where(Worker.id == worker_id)
        .values(
            beat=Worker.beat + 1,
            beat_at=now(),
            ready=chip is not None,
            bases=list(condition.bases),
            resident=list(condition.resident),
            **found,
        )
        .returning(Worker.id)
    )
    rows = session.execute(
        update(Job)
        .where(Job.id.in_(condition.jobs), Job.worker_id == worker_id, is_running)
        .values(beat=Job.beat + 1)
        .returning(Job.id, Job.cancel_requested, Job.pause_requested)
    )
    return BeatAnswer(known is not None, _wishes(rows))


def wishes(session: Session, worker_id: str) -> Mapping[str, Wish]:
    """What clients want of its running jobs; a look that writes nothing."""
    rows = session.execute(
        select(Job.id, Job.cancel_requested, Job.pause_requested).where(
            Job.worker_id == worker_id, is_running
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


def hold(session: Session, worker_id: str) -> Worker | None:
    """Its row as its last beat left it; None: it was given up. Nobody can give it up before this
    transaction ends."""
    # against the delete alone: its beats go on
    alive = {"read": True, "key_share": True}
    return session.get(Worker, worker_id, with_for_update=alive, populate_existing=True)


def sign_off(session: Session, worker_id: str) -> None:
    """A worker that ends well takes its own row away."""
    session.execute(delete(Worker).where(Worker.id == worker_id))


def everyone(session: Session) -> list[tuple[Worker, Device]]:
    """Each worker that has signed on, with its device. The reaper takes away rows of the dead."""
    query = select(Worker, Device).join(Device, Device.id == Worker.device_id)
    return [(worker, device) for worker, device in session.execute(query.order_by(Worker.id))]


def live_workers(session: Session) -> list[Worker]:
    """Those that have signed on. One whose runner begins again has the disk and the memory that it
    had before: whether it is ready matters to nobody who does not need it now."""
    return list(session.scalars(select(Worker).order_by(Worker.id)))


def open_workers(session: Session) -> list[Worker]:
    """Those that are ready and whose device may claim."""
    query = select(Worker).join(Device, Device.id == Worker.device_id)
    ready = query.where(Worker.ready, Device.state == devices.OPEN)
    return list(session.scalars(ready.order_by(Worker.id)))


def bases_on_workers(session: Session) -> set[str]:
    return {base for worker in live_workers(session) for base in worker.bases}
