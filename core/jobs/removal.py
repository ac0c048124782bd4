"""How an ended job goes, with its artifacts, events, logs and checkpoints."""

from collections.abc import Iterator
from datetime import timedelta
from itertools import chain

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from core.artifacts import deletions, needs
from core.config import Settings
from core.db.models import Artifact, Event, Job, JobInput, JobLog, now
from core.errors import WrongState
from core.jobs import service
from core.jobs.states import TERMINAL, allowed_actions
from core.webhooks import outbox


def remove(session: Session, settings: Settings, owner: str, job_id: str) -> None:
    """Takes its rows away, and plans that its files go.

    An ended job that could go on from a checkpoint of this one's could only begin again then.

    Raises:
        WrongState: it has not ended.
        InUse: a job that has not ended needs it, or what it made.
    """
    job, state = service.lock(session, owner, job_id)
    if state not in TERMINAL:
        raise WrongState(
            f"'{job_id}' is {state}: only a job that has ended can be deleted. Cancel it first.",
            allowed_actions=allowed_actions(state, job.kind),
        )
    borrowers = _borrowers(session, job_id)  # held: one of them may be about to be retried
    needs.refuse(f"job '{job_id}' or what it made", _needing(session, job_id))
    for borrower in borrowers:
        borrower.checkpoints = [each for each in borrower.checkpoints if not _is_of(each, job_id)]
    _remove(session, job, lease_seconds=settings.lease_seconds)


def forget(session: Session, job_id: str) -> bool:
    """The same of a job that has grown old; False where another job needs some of it, or may yet be
    taken up again from a checkpoint of its."""
    job = session.get(Job, job_id, with_for_update=True)
    if job is None or job.state not in TERMINAL or is_needed(session, job_id):
        return False
    _remove(session, job, lease_seconds=0)
    return True


def is_needed(session: Session, job_id: str) -> bool:
    """Whether a job that has not ended reads this one or what it made, or one that has may yet be
    taken up again from a checkpoint of this one's."""
    return bool(_borrowers(session, job_id)) or any(_needing(session, job_id))


def folder_of(job_id: str) -> str:
    """Where the store keeps all that a job made."""
    return f"jobs/{job_id}/"


def _needing(session: Session, job_id: str) -> Iterator[Job]:
    """Jobs that have not ended."""
    made = select(Artifact.id).where(Artifact.job_id == job_id).order_by(Artifact.id)
    ids = session.scalars(made.with_for_update()).all()  # nobody begins to need one meanwhile
    return chain(needs.of(session, "job", [job_id]), needs.of(session, "artifact", ids))


def _borrowers(session: Session, job_id: str) -> list[Job]:
    """Jobs that followed this one, and saved nothing of their own before they ended."""
    following = select(JobInput.job_id).where(JobInput.kind == "job", JobInput.input_id == job_id)
    jobs = select(Job).where(Job.id.in_(following)).order_by(Job.id).with_for_update()
    found = session.scalars(jobs, execution_options={"populate_existing": True})
    return [job for job in found if any(_is_of(each, job_id) for each in job.checkpoints)]


def _is_of(checkpoint: dict[str, list[dict[str, str]]], job_id: str) -> bool:
    """Whether its files lie in that job's folder."""
    return any(file["store_key"].startswith(folder_of(job_id)) for file in checkpoint["files"])


def _remove(session: Session, job: Job, *, lease_seconds: float) -> None:
    for table in (Artifact, Event, JobInput, JobLog):
        session.execute(delete(table).where(table.job_id == job.id))
    outbox.forget_job(session, job)
    session.delete(job)
    # whoever lost the job may go on writing files for a lease, not longer
    until = now() + timedelta(seconds=2 * lease_seconds) if lease_seconds else None
    deletions.plan(session, folder_of(job.id), until=until)
