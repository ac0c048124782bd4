"""The states of a job and which may follow which."""

from enum import StrEnum
from typing import Literal


class State(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


FOLLOWERS: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset(
        {State.RUNNING, State.PAUSED, State.FAILED, State.CANCELLED, State.EXPIRED}
    ),
    State.RUNNING: frozenset(
        {State.QUEUED, State.PAUSED, State.SUCCEEDED, State.FAILED, State.CANCELLED}
    ),
    State.PAUSED: frozenset({State.QUEUED, State.FAILED, State.CANCELLED}),
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
    State.EXPIRED: frozenset(),
}

TERMINAL = frozenset(state for state, followers in FOLLOWERS.items() if not followers)


Wish = Literal["cancel", "pause"]
"""What a client may want of a job while it runs."""


def allowed_actions(state: State, kind: str) -> list[str]:
    """What a client may ask of a job of this kind in this state."""
    if state == State.SUCCEEDED:
        return [] if kind == "generate" else ["extend"]
    if state in TERMINAL:
        return ["retry"]
    return ["cancel", "resume" if state == State.PAUSED else "pause"]
