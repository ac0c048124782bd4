"""Pages of a list: ids sort by time, so the last id seen is where the next page starts."""

from typing import TypeVar

from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute, Session

Row = TypeVar("Row")


def newest_first(
    session: Session,
    query: Select[Row],
    id_column: InstrumentedAttribute[str],
    *,
    cursor: str | None,
    limit: int,
) -> tuple[list[Row], str | None]:
    """Up to ``limit`` rows older than ``cursor``, and the cursor of the next page, if any."""
    older = query if cursor is None else query.where(id_column < cursor)
    return _page(session, older.order_by(id_column.desc()), id_column, limit)


def oldest_first(
    session: Session,
    query: Select[Row],
    id_column: InstrumentedAttribute[str],
    *,
    cursor: str | None,
    limit: int,
) -> tuple[list[Row], str | None]:
    """Up to ``limit`` rows made after ``cursor``, and the cursor of the next page, if any."""
    newer = query if cursor is None else query.where(id_column > cursor)
    return _page(session, newer.order_by(id_column), id_column, limit)


def _page(
    session: Session,
    ordered: Select[Row],
    id_column: InstrumentedAttribute[str],
    limit: int,
) -> tuple[list[Row], str | None]:
    found = list(session.scalars(ordered.limit(limit + 1)))
    page = found[:limit]
    more = len(found) > limit
    return page, getattr(page[-1], id_column.key) if more else None
