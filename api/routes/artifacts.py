"""Artifacts: what jobs made, and their bytes."""

from functools import partial
from pathlib import PurePosixPath
from typing import Any

from fastapi import APIRouter, Response

from api import bundle, pages
from api.deps import CursorDep, DatabaseDep, Limit, ReaderDep, StoreDep
from api.downloads import Download, WantedDep, unchanged
from api.schemas import ArtifactRead, Page
from core.artifacts import service as artifacts
from core.artifacts.service import StoredFile
from core.artifacts.store import Store
from core.db.models import Artifact

router = APIRouter(prefix="/v1/artifacts", tags=["artifacts"])

_MEDIA_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".webp": "image/webp",
    ".json": "application/json",
}
_CONTENT = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_BYTES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The bytes.", "content": _CONTENT},
    206: {"description": "The part asked for with `Range`.", "content": _CONTENT},
    304: {"description": "`If-None-Match` names what is here."},
}


@router.get("")
def list_artifacts(
    caller: ReaderDep,
    database: DatabaseDep,
    cursor: CursorDep,
    limit: Limit = pages.LIMIT,
    job: str | None = None,
    kind: str | None = None,
    role: str | None = None,
) -> Page[ArtifactRead]:
    """Newest first."""
    with database.read() as session:
        found, next_cursor = artifacts.list_page(
            session, caller.owner, job=job, kind=kind, role=role, cursor=cursor, limit=limit
        )
        return Page(
            items=[ArtifactRead.of(artifact) for artifact in found],
            next_cursor=pages.encoded(next_cursor),
        )


@router.get("/{artifact_id}")
def read_artifact(artifact_id: str, caller: ReaderDep, database: DatabaseDep) -> ArtifactRead:
    with database.read() as session:
        return ArtifactRead.of(artifacts.get(session, caller.owner, artifact_id))


@router.get("/{artifact_id}/content", response_class=Response, responses=_BYTES)
def read_content(
    artifact_id: str, caller: ReaderDep, database: DatabaseDep, store: StoreDep, wanted: WantedDep
) -> Response:
    """One file as it is; many as a zip, sorted and with fixed dates, so that its hash holds."""
    with database.read() as session:
        artifact = artifacts.get(session, caller.owner, artifact_id)
    files = artifacts.files_of(artifact)
    same = unchanged(artifact.sha256, wanted)
    if same:
        return same
    if len(files) == 1:
        return _download(store, artifact, files[0]).answer(wanted)
    return _download_many(store, artifact, files).answer(wanted)


@router.get("/{artifact_id}/files/{path:path}", response_class=Response, responses=_BYTES)
def read_file(
    artifact_id: str,
    path: str,
    caller: ReaderDep,
    database: DatabaseDep,
    store: StoreDep,
    wanted: WantedDep,
) -> Response:
    """One file of many, by the name that the artifact gives it."""
    with database.read() as session:
        artifact = artifacts.get(session, caller.owner, artifact_id)
    file = artifacts.file_of(artifact, path)
    return unchanged(file.sha256, wanted) or _download(store, artifact, file).answer(wanted)


def _download(store: Store, artifact: Artifact, file: StoredFile) -> Download:
    path = PurePosixPath(file.path)
    return Download(
        filename=path.name,
        media_type=_MEDIA_TYPES.get(path.suffix, "application/octet-stream"),
        tag=file.sha256,
        size=file.bytes,
        open=partial(store.open, file.store_key),
        inline=artifact.kind == "image",  # made here, pixel by pixel
    )


def _download_many(store: Store, artifact: Artifact, files: list[StoredFile]) -> Download:
    target = bundle.bundle(store, files)
    return Download(
        filename=f"{artifact.name}.zip",
        media_type="application/zip",
        tag=artifact.sha256,
        size=target.seek(0, 2),
        open=partial(bundle.read, target),
        close=target.close,
    )
