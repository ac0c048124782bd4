"""Forms with files: read in pieces, with a bound on what one may hold in memory."""

from fastapi import Request
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData
from starlette.formparsers import MultiPartException, MultiPartParser

from api.errors import UnsupportedMediaType
from core.errors import BadRequest

MAX_FIELDS = 16
"""Beside the files."""
_MAX_TYPE = 500
"""Characters of a Content-Type; to take a longer one apart holds everybody up."""
_WITHOUT_FILES = (b"", b"application/x-www-form-urlencoded")
_UTF8 = (b"utf-8", b"utf8")


class _Parser(MultiPartParser):
    spool_max_size = 16 * 1024
    """Of each file, before it goes to the disk: a thousand come at a time."""


async def read(request: Request, *, max_files: int) -> FormData:
    """Close it: its files lie in the home as long as it is open. Empty where it can hold no file.

    Raises:
        BadRequest: it cannot be read.
        UnsupportedMediaType: the body is no form.
    """
    sent = request.headers.get("Content-Type", "")
    if len(sent) > _MAX_TYPE:
        raise BadRequest(
            f"The Content-Type has {len(sent):,} characters and {_MAX_TYPE} are the most."
        )
    kind, options = parse_options_header(sent)
    if kind != b"multipart/form-data":
        if kind in _WITHOUT_FILES:
            return FormData()
        raise UnsupportedMediaType(f"The body came as {sent!r}: send multipart/form-data.")
    # Python has codecs that take minutes for a megabyte, and none of them is needed
    if options.get(b"charset", b"utf-8").lower() not in _UTF8:
        raise BadRequest("The form's charset cannot be read: send it as UTF-8.")
    parser = _Parser(request.headers, request.stream(), max_files=max_files, max_fields=MAX_FIELDS)
    try:
        return await parser.parse()
    except MultiPartException as error:
        raise BadRequest(f"The form cannot be read: {error.message}") from error
