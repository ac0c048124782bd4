"""Hashes of files and folders, read in pieces."""

import hashlib
from pathlib import Path
from typing import BinaryIO

_CHUNK_BYTES = 1024**2


def sha256_of(path: Path) -> str:
    """Of the file's bytes, as lower-case hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_open(file: BinaryIO) -> str:
    """Of all of an open file, wherever it stands."""
    digest = hashlib.sha256()
    file.seek(0)
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def sha256_of_folder(folder: Path) -> str:
    """Of the names and bytes of all files below it.

    Raises:
        FileNotFoundError: there are none.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    if not paths:
        raise FileNotFoundError(f"{folder} has no files")
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.relative_to(folder)} {sha256_of(path)}\n".encode())
    return digest.hexdigest()
