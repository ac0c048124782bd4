"""Which job a worker takes next, and taking it."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Select, or_, select
from sqlalchemy.orm import Session

from core.db.models import Job, Worker, now
from core.jobs.states import State
from core.jobs.transition import move

KINDS_OF_ROLE: dict[str, tuple[str, ...]] = {
    "any": ("fine_tune", "distill", "generate"),
    "train": ("fine_tune", "distill"),
    "generate": ("generate",),
}
"""A device's role, set by the operator, and the kinds of job that it takes."""

CLAIM_ORDER = (Job.turn, Job.id)
"""By turn, then the oldest first."""


def turn_of(priority: int, kind: str) -> int:
    """By priority, and of equals a picture before a training: somebody waits for it."""
    return -2 * priority + (kind != "generate")


def claim(session: Session, worker: Worker, bases: Collection[str]) -> Job | None:
    """The next job on one of ``bases``, running under a new attempt of ``worker``; None: nothing.

    Needs a write transaction: on SQLite that one lock, on PostgreSQL the row's, keeps two workers
    from taking the same job.
    """
    at = now()
    candidate = session.execute(
        _claimable(worker.role, bases, at).with_for_update(skip_locked=True).limit(1)
    ).one_or_none()
    if candidate is None:
        return None
    waited_seconds = max(0.0, (at - candidate.queued_at).total_seconds())
    return move(
        session,
        job_id=candidate.id,
        start=State.QUEUED,
        to=State.RUNNING,
        attempt=Job.attempt + 1,
        worker_id=worker.id,
        device=worker.device,
        beat=Job.beat + 1,
        not_before=None,
        started_at=candidate.started_at or at,
        queue_seconds=Job.queue_seconds + waited_seconds,
    )


def is_claimable(session: Session, role: str, bases: Collection[str]) -> bool:
    """A look that writes nothing: is there anything for a device of this role with these bases?"""
    return session.execute(_claimable(role, bases, now()).limit(1)).first() is not None


def _claimable(
    role: str, bases: Collection[str], at: datetime
) -> Select[str, datetime, datetime | None]:
    return (
        select(Job.id, Job.queued_at, Job.started_at)
        .where(
            Job.state == State.QUEUED,
            Job.kind.in_(KINDS_OF_ROLE[role]),
            Job.base.in_(bases),
            or_(Job.also_base.is_(None), Job.also_base.in_(bases)),
            or_(Job.not_before.is_(None), Job.not_before <= at),
        )
        .order_by(*CLAIM_ORDER)
    )
