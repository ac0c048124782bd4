"""Many files as one: a zip whose bytes depend on its files alone."""

import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import IO

from core.artifacts.service import StoredFile
from core.artifacts.store import CHUNK_BYTES, Store

_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the first day that a zip can name
_MODE = 0o100644 << 16
_ZIP64_BYTES = 2**31 - 1


def bundle(store: Store, files: Iterable[StoredFile]) -> IO[bytes]:
    """An unnamed file with all ``files``, sorted and not compressed; the caller closes it."""
    with ExitStack() as failing:
        target = failing.enter_context(tempfile.TemporaryFile())
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
            for file in sorted(files, key=lambda file: file.path):
                _add(archive, store, file)
        failing.pop_all()
        return target


def _add(archive: zipfile.ZipFile, store: Store, file: StoredFile) -> None:
    entry = zipfile.ZipInfo(file.path, _LONG_AGO)
    entry.create_system = 3  # Unix, wherever this runs
    entry.external_attr = _MODE
    with archive.open(entry, "w", force_zip64=file.bytes > _ZIP64_BYTES) as member:
        for chunk in store.open(file.store_key, 0, file.bytes):
            member.write(chunk)


def read(target: IO[bytes], start: int, end: int) -> Iterator[bytes]:
    """Bytes [start, end) of a bundle, which is closed after them."""
    with target:
        target.seek(start)
        while start < end:
            chunk = target.read(min(CHUNK_BYTES, end - start))
            start += len(chunk)
            yield chunk
