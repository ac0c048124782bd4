"""Many files as one: a zip whose bytes depend on its files alone, and which lies nowhere.

Its files are in it as they are, so any part of it is a part of them or of what lies between them.
"""

import io
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence

from core.artifacts.service import StoredFile
from core.artifacts.store import Store

_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the first day that a zip can name
_MODE = 0o100644 << 16
_ZIP64_BYTES = 2**31 - 1
_checksums: dict[str, int] = {}
"""CRC-32 by SHA-256, of files that were read once: a zip tells them, and our rows do not. Some 150
bytes of memory each."""


class Bundle:
    """All ``files``, sorted and not compressed."""

    def __init__(self, store: Store, files: Iterable[StoredFile]) -> None:
        self._store = store
        self._files = sorted(files, key=lambda file: file.path)
        end = sum(len(_header(file)) + file.bytes for file in self._files)
        self.size = end + len(_directory(self._files))

    def read(self, start: int, end: int) -> Iterator[bytes]:
        """Bytes [start, end). Those that are empty give others a turn while checksums are counted.

        Raises:
            NotFound: a file is no longer in the store.
        """
        for file in self._files:
            self._store.size(file.store_key)
        return self._parts(start, end)

    def _parts(self, start: int, end: int) -> Iterator[bytes]:
        for file in self._files:
            size = len(_header(file))
            if start < size and end > 0:
                yield from self._count(file)
                yield _header(file)[max(0, start) : end]
            start, end = start - size, end - size
            if start < file.bytes and end > 0:
                yield from self._store.open(file.store_key, max(0, start), min(file.bytes, end))
            start, end = start - file.bytes, end - file.bytes
        if end > 0:
            for file in self._files:
                yield from self._count(file)
            yield _directory(self._files)[max(0, start) : end]

    def _count(self, file: StoredFile) -> Iterator[bytes]:
        """Sees to the file's checksum."""
        if file.sha256 in _checksums:
            return
        checksum = 0
        for chunk in self._store.open(file.store_key, 0, file.bytes):
            checksum = zlib.crc32(chunk, checksum)
            yield b""
        _checksums[file.sha256] = checksum


class _Behind(io.BytesIO):
    """What is written to a file from byte ``at`` on."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self._at = at

    def tell(self) -> int:
        return super().tell() + self._at

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return super().seek(offset - self._at, whence) + self._at


def _header(file: StoredFile) -> bytes:
    """What stands before the file. Its length is known without the checksum."""
    return _entry(file).FileHeader(file.bytes > _ZIP64_BYTES)


def _directory(files: Sequence[StoredFile]) -> bytes:
    """What stands behind them all, of the same length with and without checksums."""
    at, entries = 0, []
    for file in files:
        entry = _entry(file)
        entry.header_offset = at
        entries.append(entry)
        at += len(_header(file)) + file.bytes
    behind = _Behind(at)
    with zipfile.ZipFile(behind, "w") as archive:
        archive.filelist.extend(entries)
    return behind.getvalue()


def _entry(file: StoredFile) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(file.path, _LONG_AGO)
    entry.create_system = 3  # Unix, wherever this runs
    entry.external_attr = _MODE
    entry.file_size = entry.compress_size = file.bytes
    entry.CRC = _checksums.get(file.sha256, 0)
    return entry
