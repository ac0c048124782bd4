"""What a worker computes on."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Chip:
    """``memory_bytes`` in all, None where nobody can tell."""

    name: str
    memory_bytes: int | None
