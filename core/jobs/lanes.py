"""Lanes: jobs of one owner, kind, base and priority, which differ in age alone.

Whoever may take one of a lane may take all of it, so a claim compares the heads of lanes and
nothing else. How long they are costs nothing.
"""

import json
from hashlib import sha256

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from core.db.models import Job, Lane


def enter(session: Session, job: Job) -> None:
    """Puts a new job into its lane, which is made when it is the first."""
    job.lane = _name(job)
    if session.get(Lane, job.lane) is not None:
        return
    lane = Lane(
        id=job.lane,
        owner=job.owner,
        kind=job.kind,
        base=job.base,
        also_base=job.also_base,
        priority=job.priority,
    )
    try:
        with session.begin_nested():
            session.add(lane)
    except IntegrityError:
        pass  # another client's first job of this lane came in between


def _name(job: Job) -> str:
    facts = [job.owner, job.kind, job.base, job.also_base, job.priority]
    return sha256(json.dumps(facts).encode()).hexdigest()[:32]
