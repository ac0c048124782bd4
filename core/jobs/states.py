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


FOLLOWERS: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.RUNNING, State.PAUSED, State.CANCELLED}),
    State.RUNNING: frozenset(
        {State.QUEUED, State.PAUSED, State.SUCCEEDED, State.FAILED, State.CANCELLED}
    ),
    State.PAUSED: frozenset({State.QUEUED, State.CANCELLED}),
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
}

TERMINAL = frozenset(state for state, followers in FOLLOWERS.items() if not followers)


Wish = Literal["cancel", "pause"]
"""What a client may want of a job while it runs."""


def allowed_actions(state: State) -> list[str]:
    """What a client may ask of a job in this state."""
    if state in TERMINAL:
        return []
    return ["cancel", "resume" if state == State.PAUSED else "pause"]
