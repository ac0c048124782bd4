"""Lanes: jobs of one owner, kind, base and priority, which differ in age alone.

Whoever may take one of a lane may take all of it, so a claim compares the heads of lanes and
nothing else. How long they are costs nothing.

Nor does what has been in them. PostgreSQL's indexes keep the entry of a row that left until a
vacuum, and none can work while anybody's transaction is left open: a look that began with the
oldest would walk through all that ran meanwhile. So a lane has a floor, the id of a job. Whatever
stands in the lane below it came back: was given back, resumed, released by a parent. Those have an
index of their own, and few ever stand there.

That nothing else stands below it is kept by a lock on the lane's row. Who puts a new job in shares
it until the commit, and says "came back" of a job that is below the floor (a clock went backwards,
another host's is behind). Who raises the floor has it alone: every job that was put in is seen
then, or reads the new floor later. Jobs that come back need no lock, wherever the floor is.
"""

import json
from contextlib import suppress
from datetime import timedelta
from hashlib import sha256

from sqlalchemy import and_, delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from core.db.models import Job, Lane, came_back, in_lane, now

from_floor = and_(Job.lane == Lane.id, in_lane, Job.id >= Lane.floor)
below_floor = and_(Job.lane == Lane.id, came_back, Job.id < Lane.floor)
"""Together all that wait in a lane. Each has an index to be looked up in, so ask for them apart."""


def enter(session: Session, job: Job) -> None:
    """Puts a new job into its lane, which is made when it is the first and stays until this
    transaction ends."""
    job.lane = _name(job)
    while (lane := session.get(Lane, job.lane, with_for_update={"read": True})) is None:
        _make(session, job)
    job.created_at = job.queued_at = now()
    if job.id < lane.floor:
        job.queued_at += timedelta(microseconds=1)  # it "came back": models.came_back


def raise_floor(session: Session, job: Job) -> None:
    """To the oldest that waits in the lane of ``job``, which was just claimed. Not while somebody
    puts a job in: the next one may."""
    lane = session.get(Lane, job.lane, with_for_update={"skip_locked": True})
    if lane is None:
        return
    waiting = select(Job.id).where(Lane.id == lane.id, from_floor)
    oldest = session.scalar(waiting.order_by(Job.id).limit(1))
    lane.floor = oldest or max(lane.floor, job.id)


def forget_empty(session: Session) -> None:
    """Takes away lanes that no job is in any more."""
    is_empty = ~select(Job.id).where(Job.lane == Lane.id).exists()
    # who is just entering one is waited for, and seen by the second look
    ids = session.scalars(select(Lane.id).where(is_empty).with_for_update()).all()
    session.execute(delete(Lane).where(Lane.id.in_(ids), is_empty))


def _make(session: Session, job: Job) -> None:
    """The lane of ``job``, unless another client's first job of it comes in between."""
    lane = Lane(
        id=job.lane,
        owner=job.owner,
        kind=job.kind,
        base=job.base,
        also_base=job.also_base,
        priority=job.priority,
    )
    with suppress(IntegrityError), session.begin_nested():
        session.add(lane)


def _name(job: Job) -> str:
    facts = [job.owner, job.kind, job.base, job.also_base, job.priority]
    return sha256(json.dumps(facts).encode()).hexdigest()[:32]
