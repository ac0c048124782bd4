"""Artifacts: what jobs made and what clients brought, and their bytes."""

from functools import partial

from fastapi import APIRouter, Response

from api import pages
from api.deps import (
    CursorDep,
    DatabaseDep,
    Limit,
    LoraUploadDep,
    ReaderDep,
    SettingsDep,
    StoreDep,
    WriterDep,
)
from api.downloads import BYTES, WantedDep, unchanged
from api.files import answer, download
from api.keyed import KeyedLoraDep, made
from api.schemas.artifacts import ArtifactBrought, ArtifactChange, ArtifactKind, ArtifactRead
from api.schemas.common import Page
from core import purge
from core.artifacts import intake, removal
from core.artifacts import service as artifacts
from core.owners.idempotency import once, seen

router = APIRouter(prefix="/v1/artifacts", tags=["artifacts"])

_LORA_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {
                            "type": "string",
                            "format": "binary",
                            "description": "A LoRA as .safetensors, in peft's, diffusers' or "
                            "kohya's form.",
                        },
                        "name": {"type": "string", "description": "Default: the file's."},
                    },
                }
            }
        },
    }
}


@router.post("", status_code=201, openapi_extra=_LORA_BODY)
def bring_lora(
    response: Response,
    caller: WriterDep,
    settings: SettingsDep,
    database: DatabaseDep,
    store: StoreDep,
    upload: LoraUploadDep,
    keyed: KeyedLoraDep,
) -> ArtifactBrought:
    """Takes a LoRA that was made elsewhere, once all of it has been checked. It is kept as sent;
    the same bytes again are the same artifact."""
    with database.read() as session:
        known = seen(session, keyed)
    if known is None:
        known = intake.receive(database, store, settings, owner=caller.owner, upload=upload).id
    with database.write() if keyed else database.read() as session:
        find = partial(artifacts.get, session, caller.owner)
        artifact, replayed = once(session, keyed, partial(find, known), find)
        response.headers.update(made(f"{router.prefix}/{artifact.id}", replayed))
        return ArtifactBrought.of(artifact)


@router.get("")
def list_artifacts(
    caller: ReaderDep,
    database: DatabaseDep,
    cursor: CursorDep,
    limit: Limit = pages.LIMIT,
    job: str | None = None,
    kind: ArtifactKind | None = None,
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


@router.patch("/{artifact_id}")
def change_artifact(
    artifact_id: str, body: ArtifactChange, caller: WriterDep, database: DatabaseDep
) -> ArtifactRead:
    """Gives it another name, or a time at which it goes. What is left out stays."""
    changes = body.model_dump(exclude_unset=True)
    with database.write() as session:
        return ArtifactRead.of(artifacts.change(session, caller.owner, artifact_id, changes))


@router.delete("/{artifact_id}", status_code=204)
def delete_artifact(
    artifact_id: str,
    caller: WriterDep,
    settings: SettingsDep,
    database: DatabaseDep,
    store: StoreDep,
) -> None:
    """With its files, unless a job that has not ended needs it."""
    with database.write() as session:
        removal.remove(session, caller.owner, artifact_id)
    purge.finish(database, store, settings)


@router.get("/{artifact_id}/content", response_class=Response, responses=BYTES)
def read_content(
    artifact_id: str, caller: ReaderDep, database: DatabaseDep, store: StoreDep, wanted: WantedDep
) -> Response:
    """One file as it is; many as a zip, sorted and with fixed dates, so that its hash holds."""
    with database.read() as session:
        artifact = artifacts.get(session, caller.owner, artifact_id)
    return answer(store, artifact, wanted)


@router.get("/{artifact_id}/files/{path:path}", response_class=Response, responses=BYTES)
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
    return unchanged(file.sha256, wanted) or download(store, artifact, file).answer(wanted)
