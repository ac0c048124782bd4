"""Keys: who may call. For administrators."""

from functools import partial

from fastapi import APIRouter, Response

from api import pages
from api.deps import AdminDep, CursorDep, DatabaseDep, Limit
from api.keyed import KeyedDocumentDep, made
from api.schemas.common import Page
from api.schemas.keys import KeyCreate, KeyMade, KeyRead
from core.db.models import Key
from core.owners import service as owners
from core.owners.idempotency import once

router = APIRouter(prefix="/v1/keys", tags=["keys"])


@router.post("", status_code=201)
def create_key(
    response: Response,
    body: KeyCreate,
    caller: AdminDep,
    database: DatabaseDep,
    keyed: KeyedDocumentDep,
) -> KeyMade:
    """Makes a key and shows it, this once."""
    token = None

    def make() -> Key:
        nonlocal token
        key, token = owners.create(
            session, owner=body.owner or caller.owner, name=body.name, scopes=body.scopes
        )
        return key

    with database.write() as session:
        key, replayed = once(session, keyed, make, partial(owners.get, session))
        response.headers.update(made(f"{router.prefix}/{key.id}", replayed))
        return KeyMade(**KeyRead.of(key).model_dump(), key=token)


@router.get("")
def list_keys(
    _caller: AdminDep, database: DatabaseDep, cursor: CursorDep, limit: Limit = pages.LIMIT
) -> Page[KeyRead]:
    with database.read() as session:
        keys, next_cursor = owners.list_page(session, cursor=cursor, limit=limit)
        return Page(items=[KeyRead.of(key) for key in keys], next_cursor=pages.encoded(next_cursor))


@router.delete("/{key_id}", status_code=204)
def delete_key(key_id: str, _caller: AdminDep, database: DatabaseDep) -> None:
    """From the next request on the key opens nothing."""
    with database.write() as session:
        owners.delete(session, key_id)
