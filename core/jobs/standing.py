"""Where jobs stand in the queue, and when their turn may come.

The queue is served by turns (``core.jobs.order``), so a position is a forecast: whatever has a
higher priority goes first, and of each other owner as many jobs as of one's own.
"""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import bindparam, func, select
from sqlalchemy.orm import Session

from core.db.models import Job, Lane, in_lane, is_running
from core.jobs.states import State
from core.workers import service as workers

_RECENT = 50
"""Jobs of a kind whose time says how long the next ones take."""
_USES = 10
"""A count of the queue is used for so many times what it took: at most a tenth of a thread goes
into counting, and a short queue is counted for every answer."""

Rank = tuple[int, bool]


@dataclass(frozen=True)
class Crowd:
    """Who waits: how many of each rank and owner, and the oldest of them."""

    waiting: Counter[tuple[Rank, str]] = field(default_factory=Counter)
    first: dict[tuple[Rank, str], str] = field(default_factory=dict)

    @property
    def depth(self) -> int:
        return self.waiting.total()

    def ahead(self, job: Job, own: int) -> int:
        """Of others: whose turn comes before the turn of ``job``, the ``own``-th of its owner."""
        rank = _rank(job.priority, job.kind)
        mine = self.first.get((rank, job.owner), job.id)
        count = 0
        for (other, owner), waiting in self.waiting.items():
            if other < rank:
                count += waiting
            elif other == rank and owner != job.owner:
                older = self.first[other, owner] < mine
                count += min(waiting, own if older else own - 1)
        return count


class Standing:
    """Counts the lanes now and then. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._crowd = Crowd()
        self._good_until = 0.0

    def crowd(self, session: Session) -> Crowd:
        with self._lock:
            began = time.monotonic()
            if began >= self._good_until:
                self._crowd = _count(session)
                ended = time.monotonic()
                self._good_until = ended + _USES * (ended - began)
            return self._crowd

    def positions(self, session: Session, jobs: Sequence[Job]) -> dict[str, int]:
        """From 1, of those among ``jobs``, all of one owner, that wait for a device and for nothing
        else."""
        waiting = [job for job in jobs if job.state == State.QUEUED and not job.waits]
        if not waiting:
            return {}
        crowd = self.crowd(session)
        own = _own_places(session, waiting)
        return {
            job.id: own[job.id] + crowd.ahead(job, own[job.id]) for job in waiting if job.id in own
        }


def eta_seconds(session: Session, positions: dict[Job, int]) -> dict[str, float | None]:
    """When the turn of these jobs may come, from what the last of their kind took here and what the
    running ones say; None where nothing has told."""
    devices = len(workers.open_workers(session))
    running = session.execute(select(Job.kind, Job.progress).where(is_running)).all()
    usual = _usual_seconds(session)
    left = [_left_seconds(progress, usual.get(kind)) for kind, progress in running]
    etas: dict[str, float | None] = {}
    for job, position in positions.items():
        seconds = usual.get(job.kind)
        if seconds is None or not devices:
            etas[job.id] = None
        elif len(left) < devices and position <= devices - len(left):
            etas[job.id] = 0.0
        else:
            etas[job.id] = round((sum(left) + (position - 1) * seconds) / devices, 1)
    return etas


_WAITING = (
    select(Job.lane, func.count().label("waiting"), func.min(Job.id).label("first"))
    .where(in_lane)
    .group_by(Job.lane)
    .subquery()
)
_LANES = select(Lane.owner, Lane.priority, Lane.kind, _WAITING.c.waiting, _WAITING.c.first).join(
    _WAITING, _WAITING.c.lane == Lane.id
)
"""Counted before they are joined: the index of the lanes alone tells."""


def _count(session: Session) -> Crowd:
    crowd = Crowd()
    rows = session.execute(_LANES)
    for owner, priority, kind, waiting, first in rows:
        place = _rank(priority, kind), owner
        crowd.waiting[place] += waiting
        crowd.first[place] = min(first, crowd.first.get(place, first))
    return crowd


def _rank(priority: int, kind: str) -> Rank:
    return -priority, kind != "generate"


_PLACES = (
    select(
        Job.id,
        func.row_number()
        .over(partition_by=[Job.priority, Job.kind == "generate"], order_by=Job.id)
        .label("place"),
    )
    .where(Job.owner == bindparam("owner"), in_lane)
    .subquery()
)
_OWN_PLACES = select(_PLACES).where(_PLACES.c.id.in_(bindparam("job_ids", expanding=True)))
_OWN_PLACE = select(func.count(Job.id)).where(
    in_lane,
    Job.id <= bindparam("job_id"),
    Job.lane.in_(
        select(Lane.id).where(
            Lane.owner == bindparam("owner"),
            Lane.priority == bindparam("priority"),
            (Lane.kind == "generate") == bindparam("draws"),
        )
    ),
)
"""Put together once: that takes longer than to answer it. Of one job, which is what is asked most,
the index of the lanes alone tells."""


def _own_places(session: Session, jobs: Sequence[Job]) -> dict[str, int]:
    """Among the owner's own of the same rank."""
    if len(jobs) == 1:
        (job,) = jobs
        alike = {"owner": job.owner, "priority": job.priority, "draws": job.kind == "generate"}
        place = session.scalar(_OWN_PLACE, {"job_id": job.id, **alike})
        return {job.id: place} if place else {}
    asked = {"owner": jobs[0].owner, "job_ids": [job.id for job in jobs]}
    return dict(session.execute(_OWN_PLACES, asked).all())


def _usual_seconds(session: Session) -> dict[str, float]:
    """By kind, of those that succeeded last."""
    last = (
        select(Job.kind, Job.device_seconds)
        .where(Job.finished_at.is_not(None), Job.state == State.SUCCEEDED)
        .order_by(Job.finished_at.desc())
        .limit(_RECENT)
        .subquery()
    )
    rows = session.execute(
        select(last.c.kind, func.avg(last.c.device_seconds)).group_by(last.c.kind)
    )
    return dict(rows.all())


def _left_seconds(progress: dict[str, Any], usual: float | None) -> float:
    told: float | None = progress["eta_seconds"]
    return told if told is not None else usual or 0.0
