"""The reference as a page: rendered from /openapi.json by our own few lines, with no other host."""

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse

router = APIRouter(include_in_schema=False)

_FOLDER = Path(__file__).resolve().parents[1] / "docs"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {"Content-Security-Policy": _POLICY, "Referrer-Policy": "no-referrer"}


@router.get("/docs")
def docs() -> FileResponse:
    return FileResponse(_FOLDER / "index.html", headers=_HEADERS)


@router.get("/docs/docs.js")
def script() -> FileResponse:
    return FileResponse(_FOLDER / "docs.js", headers=_HEADERS)


@router.get("/docs/docs.css")
def style() -> FileResponse:
    return FileResponse(_FOLDER / "docs.css", headers=_HEADERS)
