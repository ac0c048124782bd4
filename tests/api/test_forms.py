"""What reading a form may cost."""

import tracemalloc
from collections.abc import AsyncIterator

import anyio
from fastapi import Request
from starlette.types import Message

from api import forms

FILES, FILE_BYTES = 60, 200_000
PART = b'--X\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'


async def pieces() -> AsyncIterator[Message]:
    for piece in (PART, bytes(FILE_BYTES), b"\r\n") * FILES:
        yield {"type": "http.request", "body": piece, "more_body": True}
    yield {"type": "http.request", "body": b"--X--\r\n", "more_body": False}


def test_pictures_that_wait_to_be_read_wait_on_the_disk() -> None:
    body = pieces()
    headers = [(b"content-type", b"multipart/form-data; boundary=X")]
    request = Request({"type": "http", "method": "POST", "headers": headers}, body.__anext__)

    async def held_bytes() -> int:
        form = await forms.read(request, max_files=FILES)
        try:
            assert len(form.getlist("files")) == FILES
            return tracemalloc.get_traced_memory()[0]
        finally:
            await form.close()

    tracemalloc.start()
    try:
        assert anyio.run(held_bytes) < FILES * FILE_BYTES / 4
    finally:
        tracemalloc.stop()
