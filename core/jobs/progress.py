"""How far a job is, as its row tells it."""

from collections.abc import Mapping
from typing import Any


def progress_of(
    step: int, steps: int, *, message: str, eta_seconds: float | None = None
) -> dict[str, Any]:
    return {
        "step": step,
        "steps": steps,
        "fraction": round(step / steps, 4),
        "eta_seconds": eta_seconds,
        "message": message,
    }


def at_rest(progress: Mapping[str, Any], message: str) -> dict[str, Any]:
    """Of a job that nobody works on: as far as it was."""
    return {**progress, "message": message, "eta_seconds": None}
