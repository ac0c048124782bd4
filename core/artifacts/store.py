"""The store: files by key, in a folder of the home or in a bucket.

Keys are made of our own ids alone, never of a name that a client sent.
"""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from core import crash
from core.config import MIB, Settings
from core.errors import DiskFull, NotFound, Unavailable
from core.files.atomic import replacing, sync
from core.files.space import is_full_disk

CHUNK_BYTES = 4 * MIB
"""One read. Each is a request of its own, so that a slow reader times nothing out."""


class Store:
    """Safe to share between threads."""

    def __init__(self, objects: ObjectStore, folder: Path | None = None) -> None:
        self._objects = objects
        self._folder = folder

    @classmethod
    def of(cls, settings: Settings) -> "Store":
        if settings.store_url:
            return cls(from_url(settings.store_url))
        folder = settings.blobs_path
        return cls(LocalStore(folder, mkdir=True, automatic_cleanup=True), folder)

    def put_file(self, key: str, source: Path | IO[bytes]) -> None:
        """Copies ``source`` to ``key``: whole or not at all, and on the disk when this returns.

        An open file is copied from where it stands.
        """
        crash.point("before the put")
        with _away_is_unavailable():
            obstore.put(self._objects, key, source)
        crash.point("inside the put")
        self._settle(key)
        crash.point("after the put")

    def put_bytes(self, key: str, data: bytes) -> None:
        with _away_is_unavailable():
            obstore.put(self._objects, key, data)
        self._settle(key)

    def fetch(self, key: str, path: Path) -> None:
        """Copies ``key`` to ``path``, which is there whole or not at all."""
        chunks = self.open(key, 0, self.size(key))
        with replacing(path) as aside, aside.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)

    def read(self, key: str) -> bytes:
        """All of a file that is known to be small."""
        with _away_is_unavailable():
            return bytes(obstore.get(self._objects, key).bytes())

    def open(self, key: str, start: int, end: int) -> Iterator[bytes]:
        """Bytes [start, end) in chunks. The first is read at once, so a missing key raises here."""
        first = self._read(key, start, min(end, start + CHUNK_BYTES))
        return self._chunks(first, key, start, end)

    def size(self, key: str) -> int:
        """In bytes."""
        with _away_is_unavailable():
            return obstore.head(self._objects, key)["size"]

    def delete(self, key: str) -> None:
        """Deleting what is not there is no error: a second try must be able to finish."""
        with _away_is_unavailable(), suppress(FileNotFoundError):
            obstore.delete(self._objects, key)

    def delete_prefix(self, prefix: str, *, keep: Collection[str] = ()) -> None:
        """Everything whose key starts with the folder ``prefix``, except what is to be kept."""
        with _away_is_unavailable():
            keys = [each["path"] for page in obstore.list(self._objects, prefix) for each in page]
        for key in keys:
            if key not in keep:
                self.delete(key)

    def check(self) -> None:
        """Raises Unavailable unless the store answers and a local folder can be written."""
        if self._folder is not None and not os.access(self._folder, os.W_OK | os.X_OK):
            raise Unavailable(
                "The store's folder cannot be written.",
                code="store_unavailable",
                retry_after_seconds=5,
            )
        with _away_is_unavailable():
            next(iter(obstore.list(self._objects, "readiness")), None)

    def _read(self, key: str, start: int, end: int) -> bytes:
        if start >= end:
            return b""  # stores refuse to read nothing
        with _away_is_unavailable():
            return bytes(obstore.get_range(self._objects, key, start=start, end=end))

    def _chunks(self, first: bytes, key: str, start: int, end: int) -> Iterator[bytes]:
        yield first
        for at in range(start + CHUNK_BYTES, end, CHUNK_BYTES):
            yield self._read(key, at, min(end, at + CHUNK_BYTES))

    def _settle(self, key: str) -> None:
        """Local files outlive a power cut only once they and the folders above are synced."""
        if self._folder is None:
            return
        path = self._folder / key
        sync(path)
        while path != self._folder:
            path = path.parent
            sync(path)


@contextmanager
def _away_is_unavailable() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound("This file is no longer in the store.", code="file_gone") from error
    except BaseError as error:
        if is_full_disk(error):
            raise DiskFull from error
        raise Unavailable(
            "The store does not answer. Try again in a moment.",
            code="store_unavailable",
            retry_after_seconds=5,
        ) from error
