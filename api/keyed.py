"""`Idempotency-Key`: a POST that is sent again under its key makes nothing more."""

import json
from collections.abc import Iterable
from hashlib import sha256
from typing import Annotated, BinaryIO

from fastapi import Depends, Header, Request

from api.deps import CallerDep, LoraUploadDep, UploadsDep, WriterDep
from core.files.digest import sha256_of_open
from core.owners.idempotency import Request as KeyedRequest

REPLAYED = "Idempotency-Replayed"
_MAX_CALL = 255
"""Characters of method and path; longer ones name nothing that is here."""

Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="Sent again under the same key within a day, a request makes nothing more: "
        f"it is answered with what it made, and `{REPLAYED}: true`.",
    ),
]


def made(path: str, replayed: bool) -> dict[str, str]:
    """Headers of an answer that names a new row, or one that the same request had made."""
    return {"Location": path, **({REPLAYED: "true"} if replayed else {})}


async def _document(request: Request, caller: CallerDep, key: Key = None) -> KeyedRequest | None:
    if key is None:
        return None
    return _keyed(request, caller.owner, key, _meaning_of(await request.body()))


def _files(
    request: Request, caller: WriterDep, uploads: UploadsDep, key: Key = None
) -> KeyedRequest | None:
    if key is None:
        return None
    return _keyed(
        request, caller.owner, key, _told((each.filename, each.content) for each in uploads)
    )


def _lora(
    request: Request, caller: WriterDep, upload: LoraUploadDep, key: Key = None
) -> KeyedRequest | None:
    if key is None:
        return None
    files = _told([(upload.filename, upload.content)])
    return _keyed(request, caller.owner, key, [upload.name, *files])


KeyedDocumentDep = Annotated[KeyedRequest | None, Depends(_document)]
KeyedFilesDep = Annotated[KeyedRequest | None, Depends(_files, scope="function")]
KeyedLoraDep = Annotated[KeyedRequest | None, Depends(_lora, scope="function")]


def _meaning_of(body: bytes) -> object:
    """Of JSON, however it is spelt; of anything else, which whoever reads it refuses, its bytes."""
    try:
        return json.loads(body or b"null")
    except (ValueError, RecursionError):
        return body.hex()


def _keyed(request: Request, owner: str, key: str, sent: object) -> KeyedRequest:
    canonical = json.dumps(sent, sort_keys=True, separators=(",", ":"))
    call = f"{request.method} {request.url.path}"[:_MAX_CALL]
    return KeyedRequest(owner, call, key, sha256(canonical.encode()).hexdigest())


def _told(files: Iterable[tuple[str, BinaryIO]]) -> list[tuple[str, str]]:
    """Each file by its name and the hash of its bytes; then it stands at its beginning again."""
    told = []
    for name, content in files:
        told.append((name, sha256_of_open(content)))
        content.seek(0)
    return told
