"""How the pictures of a folder are laid out, found by what it holds."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from core.datasets.importing import imagefolder, shards, table
from core.datasets.importing.candidate import Found
from core.datasets.importing.roots import Roots
from core.errors import Unprocessable

Name = Literal["imagefolder", "metadata.jsonl", "metadata.parquet", "webdataset"]


@dataclass(frozen=True)
class Layout:
    """``found`` yields what is in ``folder``, once."""

    name: Name
    folder: Path
    found: Found


def find(path: Path, roots: Roots) -> Layout:
    """A table goes before shards, and shards before pictures.

    Raises:
        Unprocessable: there are two tables, or a file that is no shard.
    """
    if path.is_file():
        if path.suffix.lower() != ".tar":
            raise Unprocessable(f"{path.name} is no .tar: name a shard, or the folder it lies in.")
        return Layout("webdataset", path.parent, shards.found(path.parent, [path.name], roots))
    with os.scandir(path) as entries:  # of a hundred thousand names, those that matter
        telling = sorted(entry.name for entry in entries if _tells(entry.name))
    tables = [name for name in telling if name in (table.JSONL, table.PARQUET)]
    if len(tables) == 2:
        raise Unprocessable(f"{path.name} has two tables, {' and '.join(tables)}: keep one.")
    if table.JSONL in tables:
        return Layout("metadata.jsonl", path, table.found(path, table.JSONL, roots))
    if table.PARQUET in tables:
        return Layout("metadata.parquet", path, table.found(path, table.PARQUET, roots))
    if telling:
        return Layout("webdataset", path, shards.found(path, telling, roots))
    return Layout("imagefolder", path, imagefolder.found(path, roots))


def _tells(name: str) -> bool:
    return name in (table.JSONL, table.PARQUET) or name.lower().endswith(".tar")
