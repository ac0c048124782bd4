"""Which job a worker takes next, and taking it."""

import random
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Select, and_, func, or_, select
from sqlalchemy.orm import Session

from core.db.models import Device, Job, Lane, Worker, in_lane, now
from core.jobs import lanes
from core.jobs.order import Head, in_order
from core.jobs.states import State
from core.jobs.transition import move
from core.workers import devices
from core.workers import service as workers

KINDS_OF_ROLE: dict[str, tuple[str, ...]] = {
    "any": ("fine_tune", "distill", "generate"),
    "train": ("fine_tune", "distill"),
    "generate": ("generate",),
}
"""A device's role, set by the operator, and the kinds of job that it takes."""

_LONGEST_PAUSE = timedelta(minutes=10)
"""What is to be begun later than that was written before somebody set the clock back."""
SHUN_SECONDS = 15.0
"""So long a job that a device lost is left to the others, once it is due."""

RAISE_SHARE = 0.02
"""Of all claims: those that raise their lane's floor. So a look walks through some 50 jobs that
have left a lane, and the rows of lanes are seldom written."""


def claim(
    session: Session, worker: Worker, bases: Collection[str], resident: Collection[str] = ()
) -> Job | None:
    """The next job on one of ``bases``, running under a new attempt of ``worker``; None: nothing,
    or the worker was given up for dead meanwhile, and nobody would look after what it claims.

    Needs a write transaction: on SQLite that one lock, on PostgreSQL the row's, keeps two workers
    from taking the same job.
    """
    if not workers.is_known(session, worker.id):
        return None
    at = now()
    for head in in_order(_heads(session, worker, bases, at), resident, at):
        job = _take(session, head, worker, at)
        if job is not None:
            if random.random() < RAISE_SHARE:
                lanes.raise_floor(session, job)
            return job
    return None


def is_claimable(session: Session, worker: Worker, bases: Collection[str]) -> bool:
    """A look that writes nothing: is there anything for this worker with these bases?"""
    some = or_(*(oldest.exists() for oldest in _oldest(worker, now())))
    return session.scalar(select(Lane.id).where(*_able(worker, bases), some).limit(1)) is not None


def next_up(session: Session, worker: Worker, bases: Collection[str]) -> Head | None:
    """What this worker would claim now; a look that writes nothing."""
    at = now()
    return next(iter(in_order(_heads(session, worker, bases, at), (), at)), None)


def _heads(session: Session, worker: Worker, bases: Collection[str], at: datetime) -> list[Head]:
    """Of the lanes that the worker may take from."""
    served = select(func.max(Job.started_at)).where(Job.lane == Lane.id)
    fresh, back = (look.scalar_subquery() for look in _oldest(worker, at))
    known = session.execute(
        select(
            *(Lane.id, Lane.owner, Lane.kind, Lane.base, Lane.priority),
            and_(*_able(worker, bases)).label("is_able"),
            served.scalar_subquery().label("served_at"),
            fresh.label("fresh"),
            back.label("back"),
        )
    ).all()
    served_at = _latest_by_owner((lane.owner, lane.served_at) for lane in known)
    heads = {
        min(ids): lane
        for lane in known
        if lane.is_able and (ids := [found for found in (lane.fresh, lane.back) if found])
    }
    queued_at = _queued_at(session, heads)
    return [
        Head(
            lane=lane.id,
            job_id=job_id,
            owner=lane.owner,
            kind=lane.kind,
            base=lane.base,
            priority=lane.priority,
            queued_at=queued_at[job_id],
            lane_served_at=lane.served_at,
            owner_served_at=served_at.get(lane.owner),
        )
        for job_id, lane in heads.items()
        if job_id in queued_at
    ]


def _oldest(worker: Worker, at: datetime) -> tuple[Select[str], Select[str]]:
    """Of the jobs of a lane that may be begun: of those from its floor on, and of those that came
    back. Each has an index to look in."""
    oldest = select(Job.id).where(*_due(worker, at)).order_by(Job.id).limit(1)
    return oldest.where(lanes.from_floor), oldest.where(lanes.below_floor)


def _queued_at(session: Session, job_ids: Iterable[str]) -> dict[str, datetime]:
    rows = session.execute(select(Job.id, Job.queued_at).where(Job.id.in_(job_ids)))
    return dict(rows.all())


def _latest_by_owner(served: Iterable[tuple[str, datetime | None]]) -> dict[str, datetime]:
    latest: dict[str, datetime] = {}
    for owner, at in served:
        if at is not None:
            latest[owner] = max(at, latest.get(owner, at))
    return latest


def _take(session: Session, head: Head, worker: Worker, at: datetime) -> Job | None:
    """The first of the head's lane that nobody else is just taking."""
    candidate = session.execute(
        select(Job.id, Job.queued_at, Job.started_at)
        .where(Job.lane == head.lane, Job.id >= head.job_id, *_due(worker, at))
        .order_by(Job.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    ).one_or_none()
    if candidate is None:
        return None
    waited_seconds = max(0.0, (at - candidate.queued_at).total_seconds())
    return move(
        session,
        job_id=candidate.id,
        start=State.QUEUED,
        to=State.RUNNING,
        facts={"worker": worker.id, "device": worker.device},
        attempt=Job.attempt + 1,
        worker_id=worker.id,
        device=worker.device,
        beat=Job.beat + 1,
        not_before=None,
        claimed_at=at,
        started_at=candidate.started_at or at,
        queue_seconds=Job.queue_seconds + waited_seconds,
    )


def _able(worker: Worker, bases: Collection[str]) -> list[ColumnElement[bool]]:
    """Lanes whose jobs the worker's role and disk allow, while its device may claim at all."""
    return [
        select(Device.id)
        .where(Device.id == worker.device_id, Device.state == devices.OPEN)
        .exists(),
        Lane.kind.in_(KINDS_OF_ROLE[worker.role]),
        Lane.base.in_(bases),
        or_(Lane.also_base.is_(None), Lane.also_base.in_(bases)),
    ]


def _due(worker: Worker, at: datetime) -> list[ColumnElement[bool]]:
    """Jobs that wait for a device and may be begun on this one now."""
    shunned_until = at - timedelta(seconds=SHUN_SECONDS)
    due_since = func.coalesce(Job.not_before, Job.queued_at)
    return [
        in_lane,
        or_(Job.not_before.is_(None), ~Job.not_before.between(at, at + _LONGEST_PAUSE)),
        or_(Job.shuns.is_(None), Job.shuns != worker.device_id, due_since <= shunned_until),
        or_(Job.expires_at.is_(None), Job.expires_at > at, Job.started_at.is_not(None)),
    ]
