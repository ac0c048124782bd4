"""What routes ask for, as aliases that read like prose in their signatures."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Annotated

from fastapi import Depends, Query, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile

from api import forms, pages
from api.errors import invalid, request_id_of
from api.events import Feed
from api.picture_places import PicturePlaces
from api.schemas.artifacts import ArtifactCreate
from api.tally import Tally
from core.artifacts.intake import Upload as LoraUpload
from core.artifacts.store import Store
from core.config import Settings
from core.datasets import service as datasets
from core.datasets.decoder_pool import DecoderPool
from core.datasets.intake import Upload
from core.db.engine import Database
from core.errors import InsufficientScope, Unprocessable
from core.jobs.bell import Bell
from core.jobs.figures import Board
from core.jobs.standing import Standing
from core.owners.service import Caller

_bearer = HTTPBearer(auto_error=False, description="A key, as `stillroom keys create` shows it.")


# Coroutines, those that wait for nothing: FastAPI takes a thread of the pool for each that is none.


async def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


async def _database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


async def _decoders(request: Request) -> DecoderPool:
    decoders: DecoderPool = request.app.state.decoders
    return decoders


async def _store(request: Request) -> Store:
    store: Store = request.app.state.store
    return store


async def _revision(request: Request) -> str:
    """Of the database, for which this process was written."""
    revision: str = request.app.state.revision
    return revision


async def _bell(request: Request) -> Bell:
    bell: Bell = request.app.state.bell
    return bell


async def _standing(request: Request) -> Standing:
    standing: Standing = request.app.state.standing
    return standing


async def _board(request: Request) -> Board:
    board: Board = request.app.state.board
    return board


async def _tally(request: Request) -> Tally:
    tally: Tally = request.app.state.tally
    return tally


async def _feed(request: Request) -> Feed:
    feed: Feed = request.app.state.feed
    return feed


async def _picture_place(request: Request) -> AbstractAsyncContextManager[None]:
    """Held by those who decode pictures, so that they never take every thread there is."""
    places: PicturePlaces = request.app.state.picture_places
    caller: Caller = request.state.caller
    return places.of(caller.owner)


SettingsDep = Annotated[Settings, Depends(_settings)]
DatabaseDep = Annotated[Database, Depends(_database)]
StoreDep = Annotated[Store, Depends(_store)]
DecodersDep = Annotated[DecoderPool, Depends(_decoders)]
RevisionDep = Annotated[str, Depends(_revision)]
BellDep = Annotated[Bell, Depends(_bell)]
StandingDep = Annotated[Standing, Depends(_standing)]
BoardDep = Annotated[Board, Depends(_board)]
TallyDep = Annotated[Tally, Depends(_tally)]
FeedDep = Annotated[Feed, Depends(_feed)]
PicturePlaceDep = Annotated[AbstractAsyncContextManager[None], Depends(_picture_place)]


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


CallerDep = Annotated[Caller, Security(_caller)]
ReaderDep = Annotated[Caller, Security(_caller, scopes=["read"])]
WriterDep = Annotated[Caller, Security(_caller, scopes=["write"])]
AdminDep = Annotated[Caller, Security(_caller, scopes=["admin"])]


async def _scraper(
    request: Request,
    settings: SettingsDep,
    _described: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> None:
    """An administrator's program, unless anybody may look."""
    if not settings.metrics_open and "admin" not in request.state.caller.scopes:
        raise InsufficientScope(
            "This takes a key with the scope `admin`, or STILLROOM_METRICS_OPEN=true."
        )


ScraperDep = Annotated[None, Depends(_scraper)]


async def _request_id(request: Request) -> str:
    return request_id_of(request)


RequestIdDep = Annotated[str, Depends(_request_id)]


def _changeable(dataset_id: str, caller: WriterDep, database: DatabaseDep) -> None:
    with database.read() as session:
        datasets.get_changeable(session, caller.owner, dataset_id)


async def _uploads(
    request: Request,
    settings: SettingsDep,
    place: PicturePlaceDep,
    _checked: Annotated[None, Depends(_changeable)],
) -> AsyncIterator[list[Upload]]:
    """Read here and not by the framework: only who may change the dataset can make us read."""
    form = await forms.read(request, max_files=settings.max_files)
    try:
        async with place:
            yield [
                Upload(part.filename or "", part.file)
                for part in form.getlist("files")
                if isinstance(part, UploadFile)
            ]
    finally:
        await form.close()


UploadsDep = Annotated[list[Upload], Depends(_uploads, scope="function")]


async def _lora_upload(
    request: Request, place: PicturePlaceDep, _caller: WriterDep
) -> AsyncIterator[LoraUpload]:
    """Read here and not by the framework: only who may write can make us read."""
    form = await forms.read(request, max_files=1)
    try:
        about = _about(form)
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise Unprocessable("There is no file in this upload: send the LoRA in `file`.")
        async with place:
            yield LoraUpload(file.filename or "", file.file, about.name)
    finally:
        await form.close()


def _about(form: FormData) -> ArtifactCreate:
    fields = {name: value for name, value in form.items() if name != "file"}
    try:
        return ArtifactCreate.model_validate(fields)
    except ValidationError as error:
        raise invalid(error, fields, under="") from error


LoraUploadDep = Annotated[LoraUpload, Depends(_lora_upload, scope="function")]


def _is_imported(dataset_id: str, caller: ReaderDep, database: DatabaseDep) -> bool:
    with database.read() as session:
        return datasets.get(session, caller.owner, dataset_id).folder is not None


async def _thumbnail_side(
    place: PicturePlaceDep,
    is_imported: Annotated[bool, Depends(_is_imported)],
    size: Annotated[
        int | None, Query(ge=16, le=2048, description="Pixels of the longer side.")
    ] = None,
) -> AsyncIterator[int | None]:
    """What was imported is decoded at its full size too."""
    async with nullcontext() if size is None and not is_imported else place:
        yield size


ThumbnailSideDep = Annotated[int | None, Depends(_thumbnail_side, scope="function")]


async def _cursor(
    cursor: Annotated[
        str | None,
        Query(
            json_schema_extra={"pattern": pages.CURSOR},
            description="`next_cursor` of the page before.",
        ),
    ] = None,
) -> str | None:
    return None if cursor is None else pages.decoded(cursor)


CursorDep = Annotated[str | None, Depends(_cursor)]
Limit = Annotated[int, Query(ge=1, le=200, description="Rows in one page.")]
