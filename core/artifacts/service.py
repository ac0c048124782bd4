"""Artifacts: what a job made or a client brought, as rows that name files in the store."""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from core.db.models import Artifact, now
from core.db.pages import newest_first, oldest_first
from core.errors import NotFound, Problem, Unprocessable
from core.ids import new_id


@dataclass(frozen=True)
class StoredFile:
    """One file of an artifact: its name inside it, and where the store holds it."""

    path: str
    bytes: int
    sha256: str
    store_key: str


def sha256_of_many(files: Iterable[StoredFile]) -> str:
    """Of one file its own; of several that of the sorted lines ``path sha256``."""
    hashes = {file.path: file.sha256 for file in files}
    if len(hashes) == 1:
        return next(iter(hashes.values()))
    lines = "".join(f"{path} {hashes[path]}\n" for path in sorted(hashes))
    return hashlib.sha256(lines.encode()).hexdigest()


def record(
    session: Session,
    *,
    artifact_id: str | None = None,
    owner: str,
    job_id: str | None,
    kind: str,
    role: str,
    name: str,
    format: str,
    files: Sequence[StoredFile],
    base: str | None = None,
    layout: str | None = None,
    facts: Mapping[str, Any] | None = None,
    expires_at: datetime | None = None,
) -> Artifact:
    """A row for files that are in the store already; it counts once the caller commits.

    ``artifact_id``: where one is given out already.
    """
    assert files, "an artifact holds at least one file"
    artifact = Artifact(
        id=artifact_id or new_id("art"),
        owner=owner,
        job_id=job_id,
        kind=kind,
        role=role,
        name=name,
        format=format,
        bytes=sum(file.bytes for file in files),
        sha256=sha256_of_many(files),
        base=base,
        layout=layout,
        files=[asdict(file) for file in sorted(files, key=lambda file: file.path)],
        facts=dict(facts or {}),
        expires_at=expires_at,
    )
    session.add(artifact)
    session.flush()
    return artifact


def get(session: Session, owner: str, artifact_id: str) -> Artifact:
    artifact = session.get(Artifact, artifact_id)
    if artifact is None or artifact.owner != owner:
        raise NotFound(f"There is no artifact {artifact_id!r}.")
    return artifact


def change(session: Session, owner: str, artifact_id: str, changes: Mapping[str, Any]) -> Artifact:
    """With another ``name``, or another ``expires_at``, where None means never.

    Raises Unprocessable when it would have expired already.
    """
    session.scalar(select(Artifact.id).where(Artifact.id == artifact_id).with_for_update())
    artifact = get(session, owner, artifact_id)
    expires_at = changes.get("expires_at")
    if expires_at is not None and expires_at <= now():
        detail = (
            f"`expires_at` is {expires_at.isoformat()}, which is past: name a time to come, or "
            "delete the artifact."
        )
        raise Unprocessable(detail, errors=[Problem("/expires_at", "invalid", detail)])
    artifact.name = changes.get("name") or artifact.name
    if "expires_at" in changes:
        artifact.expires_at = expires_at
    session.flush()
    return artifact


def hold(session: Session, artifact_ids: Collection[str]) -> None:
    """Keeps them until this transaction ends: whoever deletes one finds the job that is being made.

    Raises NotFound when one is gone already.
    """
    rows = select(Artifact.id).where(Artifact.id.in_(artifact_ids)).order_by(Artifact.id)
    held = session.scalars(rows.with_for_update(read=True, key_share=True)).all()
    if gone := {*artifact_ids} - {*held}:
        raise NotFound(f"There is no artifact {min(gone)!r}.")


def file_of(artifact: Artifact, path: str) -> StoredFile:
    """The file that the artifact calls ``path``."""
    for file in files_of(artifact):
        if file.path == path:
            return file
    raise NotFound(f"Artifact {artifact.id} holds no file {path!r}.")


def files_of(artifact: Artifact) -> list[StoredFile]:
    return [StoredFile(**file) for file in artifact.files]


def list_page(
    session: Session,
    owner: str,
    *,
    job: str | None = None,
    kind: str | None = None,
    role: str | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> tuple[list[Artifact], str | None]:
    """Newest first."""
    query = select(Artifact).where(Artifact.owner == owner)
    wanted = ((Artifact.job_id, job), (Artifact.kind, kind), (Artifact.role, role))
    for column, value in wanted:
        if value is not None:
            query = query.where(column == value)
    return newest_first(session, query, Artifact.id, cursor=cursor, limit=limit)


def list_made_by(
    session: Session, job_id: str, *, cursor: str | None = None, limit: int = 50
) -> tuple[list[Artifact], str | None]:
    """What one job made, in order of making."""
    query = select(Artifact).where(Artifact.job_id == job_id)
    return oldest_first(session, query, Artifact.id, cursor=cursor, limit=limit)


def discard_made_by(session: Session, job_id: str, *, from_step: int) -> list[Artifact]:
    """Takes away the rows of what a job made, except samples of the steps before ``from_step`` and
    snapshots: other jobs may name those, and made again they would be the same.

    Returns:
        Those that stay, in order of making. Delete the others' files once this is committed.
    """
    made = session.scalars(
        select(Artifact).where(Artifact.job_id == job_id).order_by(Artifact.id)
    ).all()
    kept = [
        artifact
        for artifact in made
        if (artifact.role == "sample" and artifact.facts["step"] < from_step)
        or artifact.role == "snapshot"
    ]
    ids = [artifact.id for artifact in kept]
    session.execute(delete(Artifact).where(Artifact.job_id == job_id, Artifact.id.not_in(ids)))
    return kept
