"""Jobs that nobody began before their deadline."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.db.models import Job, may_expire, now
from core.jobs.ending import end
from core.jobs.states import State


def overdue(session: Session) -> list[str]:
    """Ids of those whose deadline has passed; a look that writes nothing."""
    return list(session.scalars(select(Job.id).where(may_expire, Job.expires_at <= now())))


def expire(session: Session, job_id: str) -> Job | None:
    """None: it was begun after all, or ended."""
    detail = "No device was free before its deadline. Retry it: the new job has none."
    return end(
        session,
        Job.started_at.is_(None),
        job_id=job_id,
        start=State.QUEUED,
        to=State.EXPIRED,
        error={"code": "deadline_passed", "detail": detail},
    )
