"""What routes ask for, as aliases that read like prose in their signatures."""

import json
from collections.abc import AsyncIterator
from contextlib import nullcontext
from hashlib import sha256
from typing import Annotated

from anyio import CapacityLimiter
from fastapi import Depends, Header, Query, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes
from starlette.datastructures import UploadFile

from api.events import Feed
from api.pages import decoded
from core.artifacts.store import Store
from core.config import Settings
from core.datasets import service as datasets
from core.datasets.intake import Upload
from core.db.engine import Database
from core.errors import BadRequest, InsufficientScope
from core.jobs.bell import Bell
from core.jobs.standing import Standing
from core.owners.idempotency import Request as KeyedRequest
from core.owners.service import Caller

_bearer = HTTPBearer(auto_error=False, description="A key, as `stillroom keys create` shows it.")


# Coroutines, those that wait for nothing: FastAPI takes a thread of the pool for each that is none.


async def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


async def _database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


async def _store(request: Request) -> Store:
    store: Store = request.app.state.store
    return store


async def _bell(request: Request) -> Bell:
    bell: Bell = request.app.state.bell
    return bell


async def _standing(request: Request) -> Standing:
    standing: Standing = request.app.state.standing
    return standing


async def _feed(request: Request) -> Feed:
    feed: Feed = request.app.state.feed
    return feed


async def _picture_places(request: Request) -> CapacityLimiter:
    """Held by those who decode pictures, so that they never take every thread there is."""
    places: CapacityLimiter = request.app.state.picture_places
    return places


SettingsDep = Annotated[Settings, Depends(_settings)]
DatabaseDep = Annotated[Database, Depends(_database)]
StoreDep = Annotated[Store, Depends(_store)]
BellDep = Annotated[Bell, Depends(_bell)]
StandingDep = Annotated[Standing, Depends(_standing)]
FeedDep = Annotated[Feed, Depends(_feed)]
PicturePlacesDep = Annotated[CapacityLimiter, Depends(_picture_places)]


async def _caller(
    needed: SecurityScopes,
    request: Request,
    _described: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Caller:
    caller: Caller = request.state.caller
    for scope in needed.scopes:
        if scope not in caller.scopes:
            raise InsufficientScope(f"This takes a key with the scope `{scope}`.")
    return caller


ReaderDep = Annotated[Caller, Security(_caller, scopes=["read"])]
WriterDep = Annotated[Caller, Security(_caller, scopes=["write"])]
AdminDep = Annotated[Caller, Security(_caller, scopes=["admin"])]


async def _keyed_request(
    request: Request,
    caller: WriterDep,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=255,
            description="Sent again under the same key within a day, a request makes nothing more: "
            "it is answered with what it made, and `Idempotency-Replayed: true`.",
        ),
    ] = None,
) -> KeyedRequest | None:
    if idempotency_key is None:
        return None
    sent = json.loads(await request.body() or b"null")
    canonical = json.dumps(sent, sort_keys=True, separators=(",", ":"))
    call = f"{request.method} {request.url.path}"[:255]  # longer ones name nothing that is here
    return KeyedRequest(caller.owner, call, idempotency_key, sha256(canonical.encode()).hexdigest())


KeyedRequestDep = Annotated[KeyedRequest | None, Depends(_keyed_request)]


def _changeable(dataset_id: str, caller: WriterDep, database: DatabaseDep) -> None:
    with database.read() as session:
        datasets.get_changeable(session, caller.owner, dataset_id)


async def _uploads(
    request: Request,
    settings: SettingsDep,
    places: PicturePlacesDep,
    _checked: Annotated[None, Depends(_changeable)],
) -> AsyncIterator[list[Upload]]:
    """Read here and not by the framework: only who may change the dataset can make us read."""
    try:
        form = await request.form(max_files=settings.max_files, max_fields=16)
    except ValueError as error:  # of the codec that the client named
        raise BadRequest("The form's charset cannot be read: send it as UTF-8.") from error
    try:
        async with places:
            yield [
                Upload(part.filename or "", part.file)
                for part in form.getlist("files")
                if isinstance(part, UploadFile)
            ]
    finally:
        await form.close()


UploadsDep = Annotated[list[Upload], Depends(_uploads, scope="function")]


async def _thumbnail_side(
    places: PicturePlacesDep,
    _caller: ReaderDep,
    size: Annotated[
        int | None, Query(ge=16, le=2048, description="Pixels of the longer side.")
    ] = None,
) -> AsyncIterator[int | None]:
    async with nullcontext() if size is None else places:
        yield size


ThumbnailSideDep = Annotated[int | None, Depends(_thumbnail_side, scope="function")]


async def _cursor(
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.")] = None,
) -> str | None:
    return None if cursor is None else decoded(cursor)


CursorDep = Annotated[str | None, Depends(_cursor)]
Limit = Annotated[int, Query(ge=1, le=200, description="Rows in one page.")]
