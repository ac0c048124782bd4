"""A training makes way for a picture that somebody waits for, where no other device is free."""

from collections.abc import Collection
from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.config import Settings
from core.db.models import Event, Job, Worker, is_running, now
from core.jobs.claim import KINDS_OF_ROLE, next_up
from core.workers import service as workers

PREEMPTED = "preempted"


def must_make_way(
    session: Session, settings: Settings, worker: Worker, job_id: str, bases: Collection[str]
) -> bool:
    """Whether the training that ``worker`` runs should be saved and go back to the queue.

    It should when a generation of higher priority would be claimed here next and every other device
    that could draw it is at a training too. Of those, the one whose training matters least yields.
    """
    waiting = next_up(session, worker, bases, max_running=settings.max_running_jobs)
    if waiting is None or waiting.kind != "generate":
        return False
    able = [
        other.id
        for other in workers.open_workers(session)
        if "generate" in KINDS_OF_ROLE[other.role] and waiting.base in other.bases
    ]
    busy = session.scalars(
        select(Job).where(is_running, Job.worker_id.in_(able), Job.kind != "generate")
    ).all()
    if len(busy) < len(able):
        return False
    yielding = min(
        (job for job in busy if job.priority < waiting.priority),
        key=lambda job: (job.priority, job.id),
        default=None,
    )
    if yielding is None or yielding.id != job_id:
        return False
    return _times_preempted(session, job_id) < settings.max_preemptions_per_hour


def _times_preempted(session: Session, job_id: str) -> int:
    """In the last hour."""
    moves = session.scalars(
        select(Event).where(
            Event.job_id == job_id, Event.type == "state", Event.at > now() - timedelta(hours=1)
        )
    )
    return sum(event.data.get("reason") == PREEMPTED for event in moves)
