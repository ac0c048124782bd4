"""Bytes of a file as an answer: whole, in part, or not at all because the client has them."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Depends, Header, Request, Response
from fastapi.responses import StreamingResponse

from api.errors import problem, request_id_of
from api.ranges import Part, is_unchanged, part_of
from core.errors import RangeNotSatisfiable

_CONTENT = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
BYTES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The bytes.", "content": _CONTENT},
    206: {"description": "The part asked for with `Range`.", "content": _CONTENT},
    304: {"description": "`If-None-Match` names what is here."},
}
"""What the description says of a download."""


@dataclass(frozen=True)
class Wanted:
    """What a request says about the part it wants and what it has."""

    request: Request
    range: Annotated[str | None, Header()] = None
    if_range: Annotated[str | None, Header()] = None
    if_none_match: Annotated[str | None, Header()] = None


WantedDep = Annotated[Wanted, Depends()]


@dataclass(frozen=True)
class Download:
    """A file to hand out. ``open(start, end)`` yields those bytes; else ``close`` is called."""

    filename: str
    media_type: str
    tag: str
    """Names the content, as its hash does: the same tag, the same bytes."""
    size: int
    open: Callable[[int, int], Iterator[bytes]]
    inline: bool = False
    close: Callable[[], None] = lambda: None

    def answer(self, wanted: Wanted) -> Response:
        etag = etag_of(self.tag)
        try:
            part = part_of(self.size, etag, range_header=wanted.range, if_range=wanted.if_range)
        except RangeNotSatisfiable as error:
            self.close()
            size = {"Content-Range": f"bytes */{self.size}"}
            return problem(error, request_id_of(wanted.request), size)
        headers = self._headers(etag, part)
        if wanted.request.method == "HEAD":
            self.close()
            return Response(None, part.status, headers, self.media_type)
        return StreamingResponse(
            self.open(part.start, part.end), part.status, headers, self.media_type
        )

    def _headers(self, etag: str, part: Part) -> dict[str, str]:
        headers = {
            **cache_headers(etag),
            "Accept-Ranges": "bytes",
            "Content-Length": str(part.end - part.start),
            "Content-Disposition": self._disposition(),
            "Content-Security-Policy": "sandbox; default-src 'none'",
        }
        if part.status == HTTPStatus.PARTIAL_CONTENT:
            headers["Content-Range"] = part.content_range
        return headers

    def _disposition(self) -> str:
        how = "inline" if self.inline else "attachment"
        plain = re.sub(r"[^A-Za-z0-9._ -]", "_", self.filename)
        return f"{how}; filename=\"{plain}\"; filename*=UTF-8''{quote(self.filename, safe='')}"


def etag_of(tag: str) -> str:
    return f'"{tag}"'


def cache_headers(etag: str) -> dict[str, str]:
    """Kept by the caller alone, and asked about each time: a deleted file must be gone."""
    return {"ETag": etag, "Cache-Control": "private, no-cache", "Vary": "Accept, Authorization"}


def unchanged(tag: str, wanted: Wanted) -> Response | None:
    """The empty answer for a client that has this content already."""
    etag = etag_of(tag)
    if not is_unchanged(etag, wanted.if_none_match):
        return None
    return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=cache_headers(etag))
