"""Which part of a file a request wants, if any. RFC 9110, sections 13 and 14."""

import re
from dataclasses import dataclass
from http import HTTPStatus

from core.errors import RangeNotSatisfiable

_BYTES = re.compile(r"bytes\s*=\s*(?P<first>\d{0,19})\s*-\s*(?P<last>\d{0,19})", re.IGNORECASE)


@dataclass(frozen=True)
class Part:
    """Bytes [start, end) of ``size``, and the status that says so."""

    status: HTTPStatus
    start: int
    end: int
    size: int

    @property
    def content_range(self) -> str:
        return f"bytes {self.start}-{self.end - 1}/{self.size}"


def is_unchanged(etag: str, if_none_match: str | None) -> bool:
    """Weak comparison: a cache may keep what is only equivalent."""
    tags = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    return "*" in tags or etag in tags


def part_of(
    size: int, etag: str, *, range_header: str | None = None, if_range: str | None = None
) -> Part:
    """What to send. A range that cannot be read is passed over, as is a list of several.

    Raises:
        RangeNotSatisfiable: it starts behind the end, or asks for the last 0 bytes.
    """
    whole = Part(HTTPStatus.OK, 0, size, size)
    if range_header is None or (if_range is not None and if_range.strip() != etag):
        return whole
    wanted = _BYTES.fullmatch(range_header.strip())
    if wanted is None:
        return whole
    first, last = wanted["first"], wanted["last"]
    if not first and not last:
        return whole
    if first and last and int(first) > int(last):
        return whole
    start = int(first) if first else max(0, size - int(last))
    end = min(size, int(last) + 1) if first and last else size
    if start >= end:
        raise RangeNotSatisfiable(f"{range_header!r} lies outside the file's {size} bytes.")
    return Part(HTTPStatus.PARTIAL_CONTENT, start, end, size)
