"""A picture as a layout names it, before anybody has looked at it."""

from collections.abc import Iterator
from dataclasses import dataclass

from core.pictures.refusal import Flaw


@dataclass(frozen=True, slots=True)
class Candidate:
    """``path`` is below the folder that is imported; the picture lies at ``offset`` of that file,
    or is all of it where ``size_bytes`` is None. ``name`` is text to show."""

    path: str
    name: str
    caption: str | None = None
    offset: int = 0
    size_bytes: int | None = None


Found = Iterator[Candidate | Flaw]
"""What a folder holds, in an order that is always the same, and what of it cannot be used."""
