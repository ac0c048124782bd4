"""The pictures that a job learns from, in a file, a line each: there may be a hundred thousand.

A frame has a cap, and what it holds is in the memory of both processes at once.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import astuple
from pathlib import Path

from core.pictures.reference import Reference

Listed = tuple[Path | Reference, str | None]
"""A picture, in a file of the job's own or where its owner keeps it, and its caption."""


def write(path: Path, pictures: Iterable[Listed]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for picture, caption in pictures:
            where = astuple(picture) if isinstance(picture, Reference) else (picture,)
            file.write(json.dumps([caption, *where], default=str) + "\n")


def read(path: Path) -> Iterator[Listed]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            caption, where, *rest = json.loads(line)
            yield Reference(Path(where), *rest) if rest else Path(where), caption
