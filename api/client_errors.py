"""What a client may meet, each with a sentence for the person at the terminal."""

import time
from collections.abc import Mapping
from typing import Any


class ClientError(Exception):
    """A sentence for the person at the terminal."""


class NoAnswer(ClientError):
    """Nobody there, or gone while speaking."""


class BrokenConnection(NoAnswer):
    """What was asked for may have been done, or not."""


class DamagedDownload(ClientError):
    """What arrived is not what the server has; nothing was kept."""


class ApiError(ClientError):
    """The server said no. ``problem`` is its whole answer, an RFC 9457 document; of a foreign
    server's only what has the right type is told."""

    def __init__(self, problem: Mapping[str, Any]) -> None:
        self.problem = problem
        self.status: int = problem.get("status", 500)
        self.code: str = _text(problem.get("code")) or "unknown"
        self.detail: str = _text(problem.get("detail")) or f"The server answered {self.status}."
        self.errors: list[dict[str, str]] = _objects(problem.get("errors"))
        further = [error for error in self.errors if error.get("detail") != self.detail]
        super().__init__("\n".join([self.detail, *map(_where, further)]))


def _text(told: object) -> str:
    return told if isinstance(told, str) else ""


def _objects(told: object) -> list[dict[str, str]]:
    return [each for each in told if isinstance(each, dict)] if isinstance(told, list) else []


def _where(error: Mapping[str, str]) -> str:
    return f"  {error.get('pointer', '')}: {error.get('detail', '')}"


def is_worth_waiting(error: ClientError, broke: float | None, patience_seconds: float) -> bool:
    """Whether what broke off, at that second of the monotonic clock, is to be tried once more.

    A server that was never there is not waited for.
    """
    since = None if broke is None else time.monotonic() - broke
    return since is not None and since <= patience_seconds and may_pass(error)


def may_pass(error: ClientError) -> bool:
    """Worth waiting for: a server between two starts, or one whose database is away."""
    return isinstance(error, NoAnswer) or (isinstance(error, ApiError) and error.status == 503)
