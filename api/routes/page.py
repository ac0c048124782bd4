"""The web page: its files, to whoever asks. What they show takes a key."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Header, Response

from api.downloads import etag_of
from api.ranges import is_unchanged
from core.errors import NotFound

router = APIRouter(include_in_schema=False)

_FOLDER = Path(__file__).resolve().parents[1] / "page"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_MEDIA_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
"""Said, not guessed from this machine's tables: a browser runs no script of another type."""


@dataclass(frozen=True)
class File:
    content: bytes
    media_type: str
    etag: str

    @classmethod
    def of(cls, path: Path) -> "File":
        content = path.read_bytes()
        return cls(content, _MEDIA_TYPES[path.suffix], etag_of(sha256(content).hexdigest()))

    def answer(self, if_none_match: str | None) -> Response:
        """Asked about each time, so that an upgrade is seen at once."""
        headers = {
            "ETag": self.etag,
            "Cache-Control": "no-cache",
            "Content-Security-Policy": _POLICY,
            "Referrer-Policy": "no-referrer",
        }
        if is_unchanged(self.etag, if_none_match):
            return Response(status_code=304, headers=headers)
        return Response(self.content, headers=headers, media_type=self.media_type)


FILES = {
    path.relative_to(_FOLDER).as_posix(): File.of(path)
    for path in sorted(_FOLDER.rglob("*"))
    if path.is_file()
}
"""All there are, by name: no name that a client sends is ever a path."""

IfNoneMatch = Annotated[str | None, Header()]


@router.get("/")
def page(if_none_match: IfNoneMatch = None) -> Response:
    return FILES["index.html"].answer(if_none_match)


@router.get("/page/{path:path}")
def file(path: str, if_none_match: IfNoneMatch = None) -> Response:
    if path not in FILES:
        raise NotFound(f"The page has no file {path!r}.")
    return FILES[path].answer(if_none_match)
