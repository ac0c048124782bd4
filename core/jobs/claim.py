"""Which job a worker takes next, and taking it."""

import random
import secrets
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Row, Select, and_, func, or_, select
from sqlalchemy.orm import Session

from core.db.models import Device, Job, Lane, Worker, in_lane, now
from core.jobs import batches, lanes
from core.jobs.batches import Candidate
from core.jobs.order import Head, in_order
from core.jobs.states import State
from core.jobs.transition import move
from core.owners import quotas
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
    session: Session,
    worker: Worker,
    bases: Collection[str],
    resident: Collection[str] = (),
    *,
    max_running: int | None = None,
) -> list[Job]:
    """The next job on one of ``bases``, running under a new attempt of ``worker``, and drawings
    that may be computed together with it. Empty: there is nothing, or the worker was given up for
    dead meanwhile, and nobody would look after what it claims. Of no owner more than
    ``max_running`` run then.

    Needs a write transaction: on SQLite that one lock, on PostgreSQL the row's, keeps two workers
    from taking the same job.
    """
    known = workers.hold(session, worker.id)
    if known is None:
        return []
    worker, at = known, now()  # with what its runner has told since it signed on
    for head in in_order(_heads(session, worker, bases, at, max_running), resident, at):
        if max_running is None:
            taken = _begin(session, head, worker, at)
        else:
            taken = _begin_if_allowed(session, head, worker, at, max_running)
        if taken:
            if random.random() < RAISE_SHARE:
                lanes.raise_floor(session, taken[0])
            return taken
    return []


def is_claimable(
    session: Session, worker: Worker, bases: Collection[str], *, max_running: int | None = None
) -> bool:
    """A look that writes nothing: is there anything for this worker with these bases?"""
    some = or_(*(oldest.exists() for oldest in _oldest(worker, now())))
    able = select(Lane.id).where(*_able(worker, bases, max_running), some)
    return session.scalar(able.limit(1)) is not None


def next_up(
    session: Session, worker: Worker, bases: Collection[str], *, max_running: int | None = None
) -> Head | None:
    """What this worker would claim now; a look that writes nothing."""
    at = now()
    heads = _heads(session, worker, bases, at, max_running)
    return next(iter(in_order(heads, (), at)), None)


def _begin(
    session: Session, head: Head, worker: Worker, at: datetime, max_running: int | None = None
) -> list[Job]:
    """The first of the head's lane, with its company; empty where others have just taken all."""
    job = _lock_first(session, head, worker, at)
    if job is None:
        return []
    others = batches.companions(session, job, worker, _due(worker, at), max_running)
    return _take(session, [job, *others], worker, at)


def _begin_if_allowed(
    session: Session, head: Head, worker: Worker, at: datetime, max_running: int
) -> list[Job]:
    """The same, once nobody else claims for this owner: two that count at once would both find
    room."""
    with session.begin_nested() as held:
        quotas.hold(session, head.owner)
        running = quotas.count_running(session, [head.owner]).get(head.owner, 0)
        taken = _begin(session, head, worker, at, max_running) if running < max_running else []
        if not taken:
            held.rollback()  # lets go of the owner: whoever waits for the next holds none
        return taken


def _heads(
    session: Session,
    worker: Worker,
    bases: Collection[str],
    at: datetime,
    max_running: int | None,
) -> list[Head]:
    """Of the lanes that the worker may take from."""
    served = select(func.max(Job.started_at)).where(Job.lane == Lane.id)
    fresh, back = (look.scalar_subquery() for look in _oldest(worker, at))
    known = session.execute(
        select(
            *(Lane.id, Lane.owner, Lane.kind, Lane.base, Lane.priority),
            and_(*_able(worker, bases, max_running)).label("is_able"),
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
    rows = _rows(session, heads)
    return [
        Head(
            lane=lane.id,
            job_id=job_id,
            owner=lane.owner,
            kind=lane.kind,
            base=lane.base,
            loads=rows[job_id].loads or lane.base,
            priority=lane.priority,
            queued_at=rows[job_id].queued_at,
            lane_served_at=lane.served_at,
            owner_served_at=served_at.get(lane.owner),
        )
        for job_id, lane in heads.items()
        if job_id in rows
    ]


def _oldest(worker: Worker, at: datetime) -> tuple[Select[str], Select[str]]:
    """Of the jobs of a lane that may be begun: of those from its floor on, and of those that came
    back. Each has an index to look in."""
    oldest = select(Job.id).where(*_due(worker, at)).order_by(Job.id).limit(1)
    return oldest.where(lanes.from_floor), oldest.where(lanes.below_floor)


def _rows(session: Session, job_ids: Iterable[str]) -> dict[str, Row[str, datetime, str | None]]:
    """By id, what the heads' own rows tell of them."""
    base, teacher = (Job.spec[name].as_string() for name in ("base", "teacher"))
    told = select(Job.id, Job.queued_at, func.coalesce(base, teacher).label("loads"))
    return {row.id: row for row in session.execute(told.where(Job.id.in_(job_ids)))}


def _latest_by_owner(served: Iterable[tuple[str, datetime | None]]) -> dict[str, datetime]:
    latest: dict[str, datetime] = {}
    for owner, at in served:
        if at is not None:
            latest[owner] = max(at, latest.get(owner, at))
    return latest


def _lock_first(session: Session, head: Head, worker: Worker, at: datetime) -> Candidate | None:
    """The first of the head's lane that nobody else is just taking."""
    first = Candidate.select().where(Job.lane == head.lane, Job.id >= head.job_id)
    first = first.where(*_due(worker, at)).order_by(Job.id).limit(1)
    row = session.execute(first.with_for_update(skip_locked=True)).one_or_none()
    return Candidate(*row) if row else None


def _take(
    session: Session, candidates: Sequence[Candidate], worker: Worker, at: datetime
) -> list[Job]:
    """Begins them all; each is locked."""
    facts = {"worker": worker.id, "device": worker.device}
    if len(candidates) > 1:
        facts["batch"] = secrets.token_hex(8)  # no job's id: other owners are told it too
    pictures = sum(job.pictures for job in candidates)
    taken = [
        move(
            session,
            job_id=job.id,
            start=State.QUEUED,
            to=State.RUNNING,
            facts=facts,
            attempt=Job.attempt + 1,
            worker_id=worker.id,
            device=worker.device,
            device_share=job.pictures / pictures if len(candidates) > 1 else 1.0,
            beat=Job.beat + 1,
            not_before=None,
            claimed_at=at,
            started_at=func.coalesce(Job.started_at, at),
            queue_seconds=Job.queue_seconds + max(0.0, (at - job.queued_at).total_seconds()),
        )
        for job in candidates
    ]
    return [job for job in taken if job is not None]


def _able(
    worker: Worker, bases: Collection[str], max_running: int | None
) -> list[ColumnElement[bool]]:
    """Lanes whose jobs the worker's role and disk allow, and the owner's limit, while its device
    may claim at all."""
    limits = [Lane.owner.not_in(quotas.owners_at_limit(max_running))] if max_running else []
    return [
        *limits,
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
