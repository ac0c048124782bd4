"""Files on their way to a server: which, in which requests, and how far they are."""

import io
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

from api.client_errors import ClientError

FILES_A_REQUEST = 200
"""The server takes 1,000; each is an open file here, and 256 of those is a common limit."""

BYTES_A_REQUEST = 64 * 10**6
"""Photographs of a camera take the server a second each before it answers: some twenty of them, so
that nobody thinks that it has gone. And little to send again where a request broke off."""

Batch = Sequence[tuple[str, Path]]
"""Files of one request, by the names that they are sent under."""


class Counted(io.FileIO):
    """A file that tells how many bytes were read of it, each time that some are."""

    def __init__(self, path: Path, tell: Callable[[int], None]) -> None:
        super().__init__(path)
        self._tell = tell

    def read(self, size: int | None = -1) -> bytes:
        content = super().read(-1 if size is None else size) or b""
        self._tell(len(content))
        return content


def files_of(paths: Sequence[Path]) -> list[tuple[str, Path]]:
    """Names and places of all files; a folder stands for all it holds but hidden files.

    Raises:
        ClientError: one of the paths is not there, or there is no file at all.
    """
    found = []
    for path in paths:
        if path.is_dir():
            inside = [member.relative_to(path) for member in sorted(path.rglob("*"))]
            found += [
                (name_of(member), path / member)
                for member in inside
                if (path / member).is_file() and not any(p.startswith(".") for p in member.parts)
            ]
        elif path.is_file():
            found.append((name_of(Path(path.name)), path))
        else:
            raise ClientError(f"There is no file or folder {path}.")
    if not found:
        raise ClientError(f"No file to upload in {', '.join(map(str, paths)) or 'nothing'}.")
    return found


def name_of(path: Path) -> str:
    """What a file is sent as. A name that is not UTF-8 is read as Latin-1, which fits all bytes and
    is what most such names are."""
    name = path.as_posix()
    try:
        name.encode()
    except UnicodeEncodeError:
        return os.fsencode(name).decode("latin-1")
    return name


def batches(files: Sequence[tuple[str, Path]]) -> Iterator[list[tuple[str, Path]]]:
    """Requests of about ``FILES_A_REQUEST`` files and up to ``BYTES_A_REQUEST``, or a larger one;
    they keep a picture and its caption together."""
    tables = [entry for entry in files if entry[1].name == "metadata.jsonl"]
    others = sorted((entry for entry in files if entry not in tables), key=_picture_of)
    batch: list[tuple[str, Path]] = []
    batch_bytes = 0
    for _, group in groupby(others, key=_picture_of):
        together = list(group)
        more_bytes = bytes_of(together)
        is_full = len(batch) >= FILES_A_REQUEST or batch_bytes + more_bytes > BYTES_A_REQUEST
        if batch and is_full:
            yield batch
            batch, batch_bytes = [], 0
        batch += together
        batch_bytes += more_bytes
    if batch or tables:
        yield batch + tables


def bytes_of(batch: Batch) -> int:
    return sum(path.stat().st_size for _, path in batch)


def _picture_of(entry: tuple[str, Path]) -> Path:
    """What ``dog.png`` and its caption ``dog.txt`` share."""
    return entry[1].with_suffix("")
