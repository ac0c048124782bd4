"""What a job's runner said last."""

from sqlalchemy.orm import Session

from core.db.models import JobLog


def keep(session: Session, job_id: str, lines: list[str]) -> None:
    """In place of what was kept before."""
    kept = session.get(JobLog, job_id)
    if kept is None:
        session.add(JobLog(job_id=job_id, lines=lines))
    else:
        kept.lines = lines


def tail(session: Session, job_id: str, count: int) -> list[str]:
    """The last ``count`` lines, oldest first."""
    kept = session.get(JobLog, job_id)
    return kept.lines[-count:] if kept else []
