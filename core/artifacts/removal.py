"""How an artifact goes: when its owner says so, or once it has expired."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.artifacts import deletions, needs, service
from core.db.models import Artifact, Job, expires
from core.errors import NotFound


def remove(session: Session, owner: str, artifact_id: str) -> None:
    """Takes its row away, and plans that its files go.

    Raises:
        InUse: a job that has not ended needs it, or is still making it.
    """
    artifact = _locked(session, service.get(session, owner, artifact_id))
    needs.refuse(f"artifact {artifact.id}", needs.of_artifact(session, artifact))
    _remove(session, artifact)


def remove_expired(session: Session, artifact_id: str, at: datetime) -> bool:
    """The same of one whose time has come; False where a job needs it, or it got more time."""
    found = session.get(Artifact, artifact_id)
    if found is None:
        return False
    try:
        artifact = _locked(session, found)
    except NotFound:  # somebody else was faster
        return False
    if artifact.expires_at is None or artifact.expires_at > at:
        return False
    if next(needs.of_artifact(session, artifact), None):
        return False
    _remove(session, artifact)
    return True


def expired(session: Session, at: datetime, *, after: str, limit: int) -> Sequence[str]:
    """Ids of those whose time has come, in their order, from the one ``after`` this id on."""
    query = select(Artifact.id).where(expires, Artifact.expires_at <= at, Artifact.id > after)
    return session.scalars(query.order_by(Artifact.id).limit(limit)).all()


def _locked(session: Session, artifact: Artifact) -> Artifact:
    """The artifact, as it stays until this transaction ends. Its job first: who wants that job's
    LoRA holds the job."""
    if artifact.job_id:
        session.get(Job, artifact.job_id, with_for_update=True)
    query = select(Artifact).where(Artifact.id == artifact.id).with_for_update()
    locked = session.scalar(query, execution_options={"populate_existing": True})
    if locked is None:
        raise NotFound(f"There is no artifact {artifact.id!r}.")
    return locked


def _remove(session: Session, artifact: Artifact) -> None:
    session.delete(artifact)
    deletions.plan_files(session, artifact.files)
