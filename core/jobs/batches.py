"""Drawings that a worker may take together: their rows share the batches of the device.

Nobody waits for company: a claim takes what is waiting already, and leaves their share to devices
that have nothing to do.
"""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from hashlib import sha256
from itertools import accumulate, takewhile
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import ColumnElement

from core import estimate
from core.db.models import Job, Worker, batched, is_running
from core.estimate import MAX_ROWS
from core.footprints import is_counted
from core.layouts import UNetShape
from core.owners import quotas
from core.specs import GenerateSpec
from core.workers import service as workers

_MEMORY_SHARE = 0.4
"""Of a device's memory, for the rows of a batch."""


@dataclass(frozen=True)
class Candidate:
    """What a claim looks at of a job that may be begun."""

    id: str
    owner: str
    queued_at: datetime
    base: str
    batch_key: str | None
    losses: int
    pictures: int
    row_bytes: int

    @classmethod
    def select(cls) -> Select[Any]:
        """Rows of which it can be made."""
        return select(*(getattr(Job, column.name) for column in fields(cls)))


def key_of(spec: GenerateSpec) -> str:
    """The same for drawings whose rows can be computed together."""
    facts = [
        spec.base,
        spec.precision,
        spec.width,
        spec.height,
        spec.steps,
        spec.scheduler,
        spec.guidance > 1,
        spec.image.strength if spec.image else None,
    ]
    return sha256(json.dumps(facts).encode()).hexdigest()[:32]


def row_bytes(spec: GenerateSpec, shape: UNetShape) -> int:
    """What one of its rows takes of a GPU's memory."""
    return estimate.drawn_bytes(spec, shape, on_gpu=True) if is_counted(shape) else 0


def companions(
    session: Session,
    first: Candidate,
    worker: Worker,
    due: Sequence[ColumnElement[bool]],
    max_running: int | None = None,
) -> list[Candidate]:
    """Waiting jobs to be begun with ``first`` on ``worker``, oldest first; nobody else can
    take them before this transaction ends.

    Of those that came after it alone: whoever came before has a turn of its own, and a look that
    begins with the oldest would walk through all that ran since the last vacuum.
    """
    room = _room(first, worker) - first.pictures
    if first.batch_key is None or first.losses or room < 1:
        return []
    waiting = (
        Candidate.select()
        .where(Job.batch_key == first.batch_key, batched, *due)
        .where(Job.losses == 0)  # what may have killed a runner gets one of its own
        .where(Job.id > first.id)
        .order_by(Job.id)
    )
    share = _share(session, first, waiting, room)
    if share < 1:
        return []
    rows = session.execute(waiting.limit(share).with_for_update(skip_locked=True))
    jobs = [Candidate(*row) for row in rows]
    if max_running is not None:
        jobs = _allowed(session, first, jobs, max_running)
    taken = accumulate(job.pictures for job in jobs)
    return jobs[: len(list(takewhile(lambda pictures: pictures <= share, taken)))]


def _share(session: Session, first: Candidate, waiting: Select[Any], room: int) -> int:
    """Of ``room``, what the device that claims takes beside ``first``: others that have nothing to
    do get as much. It looks no further than a full batch for each, and locks none of them."""
    idle = _count_idle(session, first)
    if idle == 1:
        return room
    look = waiting.with_only_columns(Job.pictures).limit(room * idle)
    pictures = first.pictures + sum(session.scalars(look))
    return min(room, math.ceil(pictures / idle) - first.pictures)


def _allowed(
    session: Session, first: Candidate, waiting: Sequence[Candidate], max_running: int
) -> list[Candidate]:
    """Those whose owners may have one more that runs. Who is being counted elsewhere is left
    out: ``first``'s owner is held already, and to wait while holding one is how two never end."""
    others = {job.owner for job in waiting} - {first.owner}
    known = quotas.hold_free(session, others) | {first.owner}
    begun = Counter(quotas.count_running(session, known))
    begun[first.owner] += 1
    allowed = []
    for job in waiting:
        if job.owner in known and begun[job.owner] < max_running:
            begun[job.owner] += 1
            allowed.append(job)
    return allowed


def _room(first: Candidate, worker: Worker) -> int:
    """Rows that the worker's device has memory for, as far as anybody knows."""
    if not first.row_bytes or worker.memory_bytes is None:
        return MAX_ROWS
    return min(MAX_ROWS, int(_MEMORY_SHARE * worker.memory_bytes) // first.row_bytes)


def _count_idle(session: Session, first: Candidate) -> int:
    """Devices that could draw it and run nothing, the one that claims among them."""
    busy = set(session.scalars(select(Job.worker_id).where(is_running)))
    able = [
        worker
        for worker in workers.open_workers(session)
        if worker.role != "train" and first.base in worker.bases and worker.id not in busy
    ]
    return max(1, len(able))
