"""Keys: random, shown once, kept as a hash. Each has an owner and says what it may do."""

import hashlib
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from core.db.models import Key
from core.db.pages import newest_first
from core.errors import NotFound, Unauthorized
from core.files.atomic import write_text
from core.ids import new_id

Scope = Literal["read", "write", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
ADMIN = "admin"
"""The owner of the key that a server makes for itself."""


@dataclass(frozen=True)
class Caller:
    """Who asks: rows are theirs or invisible, and ``scopes`` say what they may do."""

    owner: str
    scopes: frozenset[str]
    key_id: str


_CALLER = select(Key.id, Key.owner, Key.scopes).where(Key.sha256 == bindparam("sha256"))
"""Put together once, without the row's object: every request asks it."""


def authenticate(session: Session, token: str) -> Caller:
    key = session.execute(_CALLER, {"sha256": _hash(token)}).one_or_none()
    if key is None:
        raise Unauthorized("This key is not known here: it was mistyped or has been deleted.")
    return Caller(owner=key.owner, scopes=frozenset(key.scopes), key_id=key.id)


def present(session: Session, key_ids: Collection[str]) -> set[str]:
    """Those of ``key_ids`` that nobody has deleted."""
    return set(session.scalars(select(Key.id).where(Key.id.in_(key_ids))))


def create(session: Session, *, owner: str, name: str, scopes: Sequence[Scope]) -> tuple[Key, str]:
    """A new key, and its text: the only time that anyone can read it."""
    token = _new_token()
    return _add(session, token, owner=owner, name=name, scopes=scopes), token


def list_page(
    session: Session, *, cursor: str | None = None, limit: int = 50
) -> tuple[list[Key], str | None]:
    """Keys of every owner, newest first."""
    return newest_first(session, select(Key), Key.id, cursor=cursor, limit=limit)


def get(session: Session, key_id: str) -> Key:
    key = session.get(Key, key_id)
    if key is None:
        raise NotFound(f"There is no key {key_id!r}.")
    return key


def delete(session: Session, key_id: str) -> None:
    session.delete(get(session, key_id))


def ensure_admin_key(session: Session, path: Path) -> None:
    """Makes the key in ``path`` valid; writes a new one (0600) when there is none.

    The file comes first: a crash before the commit leaves a file whose row the next start makes.
    """
    token = path.read_text(encoding="utf-8").strip() if path.exists() else ""
    if not token:
        token = _new_token()
        write_text(path, f"{token}\n", mode=0o600)
    if session.execute(_CALLER, {"sha256": _hash(token)}).one_or_none() is None:
        _add(session, token, owner=ADMIN, name="admin.key", scopes=SCOPES)


def _new_token() -> str:
    return f"stillroom_{secrets.token_urlsafe(32)}"


def _hash(token: str) -> str:
    """Plain SHA-256: the tokens hold 256 random bits, so there is nothing to guess."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def _add(session: Session, token: str, *, owner: str, name: str, scopes: Sequence[Scope]) -> Key:
    key = Key(
        id=new_id("key"), owner=owner, name=name, sha256=_hash(token), scopes=sorted(set(scopes))
    )
    session.add(key)
    session.flush()
    return key
