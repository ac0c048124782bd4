"""Requests that are carried out once, however often a client sends them under one key of its own.

The row is written first, in the transaction that makes what was asked for: of two that come at
once the second waits for the first to commit, and then finds what it made.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol, TypeVar

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from core.db.models import IdempotencyKey, now
from core.errors import IdempotencyMismatch

KEPT = timedelta(hours=24)


@dataclass(frozen=True)
class Request:
    """``call`` is its method and path, ``sha256`` that of its body as canonical JSON, or of the
    files in a form."""

    owner: str
    call: str
    key: str
    sha256: str


class _Row(Protocol):
    id: str


T = TypeVar("T", bound=_Row)


def once(
    session: Session, request: Request | None, make: Callable[[], T], find: Callable[[str], T]
) -> tuple[T, bool]:
    """What ``make`` makes for this request or, by its id, what it made when the request came first;
    and whether it had come before. Without a request it is made.

    Raises:
        IdempotencyMismatch: the key came with another body before.
    """
    if request is None:
        return make(), False
    row = _row_of(session, request)
    if row.made is None:
        made = make()
        row.made = made.id
        return made, False
    _require_same(row, request)
    return find(row.made), True


def seen(session: Session, request: Request | None) -> str | None:
    """The id of what this request made when it came before: a look that locks nothing, for who has
    long work to do before ``once``.

    Raises:
        IdempotencyMismatch: the key came with another body before.
    """
    if request is None:
        return None
    row = session.get(IdempotencyKey, _name_of(request))
    if row is None or row.created_at < now() - KEPT:
        return None
    _require_same(row, request)
    return row.made


def forget_old(session: Session) -> None:
    """Takes away what was kept long enough."""
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < now() - KEPT))


def any_old(session: Session) -> bool:
    """A look that writes nothing."""
    old = select(IdempotencyKey.key).where(IdempotencyKey.created_at < now() - KEPT)
    return session.scalar(old.limit(1)) is not None


def _row_of(session: Session, request: Request) -> IdempotencyKey:
    """The request's row, locked; ``made`` is None when it is new, or so old that it counts as
    new."""
    name = _name_of(request)
    while (row := session.get(IdempotencyKey, name, with_for_update=True)) is None:
        with suppress(IntegrityError), session.begin_nested():
            session.add(IdempotencyKey(**name, sha256=request.sha256))
    if row.created_at < now() - KEPT:
        row.sha256, row.made, row.created_at = request.sha256, None, now()
    return row


def _name_of(request: Request) -> dict[str, str]:
    return {"owner": request.owner, "call": request.call, "key": request.key}


def _require_same(row: IdempotencyKey, request: Request) -> None:
    if row.sha256 != request.sha256:
        raise IdempotencyMismatch(
            f"The `Idempotency-Key` '{request.key}' was sent to {request.call} before, with "
            "another body: send each request under a key of its own."
        )
