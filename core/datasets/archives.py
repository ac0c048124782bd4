"""Zips, read member by member. The names inside are text; nothing is unpacked under them."""

import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any, BinaryIO, cast

from core.config import GIB, MIB, Settings
from core.pictures.refusal import Flaw, Refused

SIGNATURES = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
ENTRY_BYTES = 512
"""Room for one line of the table of contents, its name included."""
_CHUNK_BYTES = MIB
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_LEFTOVERS = (".DS_Store", "Thumbs.db", "desktop.ini")
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    RuntimeError,
    ValueError,
    OverflowError,
    LookupError,
    EOFError,
    OSError,
)
"""What Python's zipfile raises on offsets, names and fields that make no sense."""


@dataclass(frozen=True)
class Member:
    """One file of a zip: its name, and either what it holds or why it was refused."""

    name: str
    content: BinaryIO | None
    flaw: Flaw | None = None


def is_zip(head: bytes) -> bool:
    return head.startswith(SIGNATURES)


def members(
    file: BinaryIO, filename: str, settings: Settings, max_members: int
) -> Iterator[Member]:
    """The members in their order, each valid until the next is asked for.

    Folders, and what operating systems leave behind, are passed over.

    Raises:
        Refused: the zip as a whole is damaged, a bomb or too long. Members before that stay good.
    """
    packed_bytes = file.seek(0, 2)
    file.seek(0)
    try:
        with zipfile.ZipFile(cast(IO[bytes], _Capped(file, packed_bytes, settings))) as archive:
            _require_few(archive, filename, max_members)
            _require_harmless(archive, packed_bytes, filename, settings)
            yield from _each(archive, filename, settings)
    except _DAMAGED as error:
        raise _damaged(filename) from error


def is_unsafe(name: str) -> bool:
    """Whether ``name`` would lead out of a folder on any system."""
    parts = name.replace("\\", "/").split("/")
    return "\0" in name or name.startswith(("/", "\\")) or ".." in parts or name[1:2] == ":"


class _Capped:
    """Refuses to read a table of contents that no honest zip has: zipfile takes it in one piece."""

    def __init__(self, file: BinaryIO, size: int, settings: Settings) -> None:
        self._file = file
        self._size = size
        self._cap = max(settings.max_zip_entries * ENTRY_BYTES, 2 * MIB)

    def read(self, count: int = -1) -> bytes:
        rest = self._size - self._file.tell()
        if min(rest, count if count >= 0 else rest) > self._cap:
            raise zipfile.BadZipFile("the table of contents is too long")
        return self._file.read(count)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _require_few(archive: zipfile.ZipFile, filename: str, max_members: int) -> None:
    count = len(archive.infolist())
    if count > max_members:
        raise Refused(
            "too_many_entries",
            f"{filename} holds {count:,} files and this upload has room for {max_members:,}: send "
            "it in parts.",
        )


def _require_harmless(
    archive: zipfile.ZipFile, packed_bytes: int, filename: str, settings: Settings
) -> None:
    """From the table of contents alone, before anything is unpacked."""
    unpacked_bytes = sum(entry.file_size for entry in archive.infolist())
    if unpacked_bytes > min(settings.max_zip_bytes, settings.max_zip_ratio * packed_bytes):
        raise _bomb(filename, settings)


def _each(archive: zipfile.ZipFile, filename: str, settings: Settings) -> Iterator[Member]:
    allowance = settings.max_zip_bytes
    for entry in archive.infolist():
        if entry.is_dir() or is_leftover(entry.filename):
            continue
        flaw = _flaw_of(entry, filename)
        if flaw:
            yield Member(entry.orig_filename, None, flaw)
            continue
        with tempfile.SpooledTemporaryFile(max_size=_CHUNK_BYTES) as content:
            flaw = _unpack(archive, entry, content, settings.max_image_bytes)
            allowance -= content.tell()
            if allowance < 0:
                raise _bomb(filename, settings)
            content.seek(0)
            yield Member(entry.filename, None if flaw else cast(BinaryIO, content), flaw)


def is_leftover(name: str) -> bool:
    """Whether an operating system left it behind."""
    path = PurePosixPath(name)
    return path.name in _LEFTOVERS or path.name.startswith("._") or "__MACOSX" in path.parts


def _flaw_of(entry: zipfile.ZipInfo, filename: str) -> Flaw | None:
    name = entry.orig_filename
    if is_unsafe(name):
        return Flaw("unsafe_path", f"{filename} holds a file named {name!r}, which leads outside.")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        return Flaw("link", f"{name} in {filename} is a link or a device, not a file.")
    if entry.flag_bits & 0x1:
        return Flaw("encrypted", f"{name} in {filename} is encrypted: send it without a password.")
    if entry.compress_type not in _METHODS:
        return Flaw(
            "unsupported_compression",
            f"{name} in {filename} is packed in an unusual way: use plain deflate.",
        )
    return None


def _unpack(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: IO[bytes], cap: int
) -> Flaw | None:
    """Copies by actual bytes: what the table of contents says about sizes may be a lie."""
    try:
        with archive.open(entry) as source:
            while chunk := source.read(_CHUNK_BYTES):
                target.write(chunk)
                if target.tell() > cap:
                    return Flaw(
                        "too_large",
                        f"{entry.filename} unpacks to more than {cap / MIB:g} MiB.",
                    )
    except _DAMAGED:
        return Flaw("truncated", f"{entry.filename} is damaged inside its zip.")
    return None


def _damaged(filename: str) -> Refused:
    return Refused("truncated", f"{filename} is not a readable zip: it is damaged or incomplete.")


def _bomb(filename: str, settings: Settings) -> Refused:
    return Refused(
        "zip_bomb",
        f"{filename} unpacks to more than {settings.max_zip_bytes / GIB:g} GiB or to more than "
        f"{settings.max_zip_ratio} times its size.",
    )
