"""Hashes of files, read in pieces."""

import hashlib
from pathlib import Path


def sha256_of(path: Path) -> str:
    """Of the file's bytes, as lower-case hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
