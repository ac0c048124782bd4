"""What routes ask for, as aliases that read like prose in their signatures."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Query, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes
from starlette.datastructures import UploadFile

from api.pages import decoded
from core.artifacts.store import Store
from core.config import Settings
from core.datasets import service as datasets
from core.datasets.intake import Upload
from core.db.engine import Database
from core.errors import BadRequest, InsufficientScope, Unauthorized
from core.jobs.bell import Bell
from core.owners import service as owners
from core.owners.service import Caller

_bearer = HTTPBearer(auto_error=False, description="A key, as `stillroom keys create` shows it.")


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


def _database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


def _store(request: Request) -> Store:
    store: Store = request.app.state.store
    return store


def _bell(request: Request) -> Bell:
    bell: Bell = request.app.state.bell
    return bell


SettingsDep = Annotated[Settings, Depends(_settings)]
DatabaseDep = Annotated[Database, Depends(_database)]
StoreDep = Annotated[Store, Depends(_store)]
BellDep = Annotated[Bell, Depends(_bell)]


def _caller(
    needed: SecurityScopes,
    database: DatabaseDep,
    sent: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Caller:
    if sent is None:
        raise Unauthorized("Send a key, as in `Authorization: Bearer stillroom_…`.")
    with database.read() as session:
        caller = owners.authenticate(session, sent.credentials)
    for scope in needed.scopes:
        if scope not in caller.scopes:
            raise InsufficientScope(f"This takes a key with the scope `{scope}`.")
    return caller


ReaderDep = Annotated[Caller, Security(_caller, scopes=["read"])]
WriterDep = Annotated[Caller, Security(_caller, scopes=["write"])]
AdminDep = Annotated[Caller, Security(_caller, scopes=["admin"])]


def _changeable(dataset_id: str, caller: WriterDep, database: DatabaseDep) -> None:
    with database.read() as session:
        datasets.get_changeable(session, caller.owner, dataset_id)


async def _uploads(
    request: Request, settings: SettingsDep, _checked: Annotated[None, Depends(_changeable)]
) -> AsyncIterator[list[Upload]]:
    """Read here and not by the framework: only who may change the dataset can make us read."""
    try:
        form = await request.form(max_files=settings.max_files, max_fields=16)
    except UnicodeError as error:
        raise BadRequest("The form's charset cannot be read: send it as UTF-8.") from error
    try:
        yield [
            Upload(part.filename or "", part.file)
            for part in form.getlist("files")
            if isinstance(part, UploadFile)
        ]
    finally:
        await form.close()


UploadsDep = Annotated[list[Upload], Depends(_uploads)]


def _cursor(
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.")] = None,
) -> str | None:
    return None if cursor is None else decoded(cursor)


CursorDep = Annotated[str | None, Depends(_cursor)]
Limit = Annotated[int, Query(ge=1, le=200, description="Rows in one page.")]
