"""Cursors: the last id of a page, wrapped so that nobody builds one by hand."""

import base64
import binascii

from core.errors import Problem, Unprocessable

LIMIT = 50
"""Rows in a page when nobody says."""
CURSOR = r"^[A-Za-z0-9_-]+={0,2}$"
"""What it looks like."""


def encoded(cursor: str | None) -> str | None:
    return None if cursor is None else base64.urlsafe_b64encode(cursor.encode()).decode()


def decoded(text: str) -> str:
    try:
        cursor = base64.b64decode(text.encode(), altchars=b"-_", validate=True).decode("ascii")
        if not cursor or not cursor.isprintable():
            raise ValueError(cursor)
        return cursor
    except (binascii.Error, ValueError) as error:
        detail = "`cursor` is not one of ours: send `next_cursor` of the page before, unchanged."
        raise Unprocessable(
            detail, code="bad_cursor", errors=[Problem("/cursor", "bad_cursor", detail)]
        ) from error
