"""Which job that has not ended needs a dataset, an artifact or a job."""

from collections.abc import Collection, Iterator

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from core.db.models import Artifact, Job, JobInput
from core.errors import InUse


def of(session: Session, kind: str, ids: Collection[str]) -> Iterator[Job]:
    """The oldest first. ``kind`` as in ``job_inputs``."""
    needing = select(JobInput.job_id).where(JobInput.kind == kind, JobInput.input_id.in_(ids))
    return _unfinished(session, Job.id.in_(needing))


def of_artifact(session: Session, artifact: Artifact) -> Iterator[Job]:
    """Those that read it, by its id or as what its job made, and the one that makes it."""
    yield from of(session, "artifact", [artifact.id])
    if artifact.job_id:
        yield from _unfinished(session, Job.id == artifact.job_id)
    if artifact.job_id and artifact.role == "lora":
        for job in of(session, "job", [artifact.job_id]):
            if any(use["job"] == artifact.job_id for use in job.spec.get("loras", [])):
                yield job


def refuse(what: str, needing: Iterator[Job]) -> None:
    """Raises InUse, by the name of the first job, if there is one."""
    for job in needing:
        raise InUse(
            f"'{job.id}' ({job.state}) needs {what}: wait until that job has ended, or cancel it."
        )


def _unfinished(session: Session, which: ColumnElement[bool]) -> Iterator[Job]:
    query = select(Job).where(which, Job.finished_at.is_(None)).order_by(Job.id)
    yield from session.scalars(query, execution_options={"populate_existing": True})
