"""Every pair of states, and what the row does with each."""

from itertools import product

import pytest

from core.jobs.states import FOLLOWERS, TERMINAL, State, allowed_actions

LEGAL = {
    ("queued", "running"),
    ("queued", "paused"),
    ("queued", "cancelled"),
    ("queued", "failed"),  # what it waits for failed
    ("queued", "expired"),
    ("running", "queued"),
    ("running", "paused"),
    ("running", "succeeded"),
    ("running", "failed"),
    ("running", "cancelled"),
    ("paused", "queued"),
    ("paused", "cancelled"),
    ("paused", "failed"),
}


@pytest.mark.parametrize(("start", "to"), list(product(State, State)))
def test_only_these_transitions_are_legal(start: State, to: State) -> None:
    assert (to in FOLLOWERS[start]) == ((start, to) in LEGAL)


def test_what_ended_stays_ended() -> None:
    assert {State.SUCCEEDED, State.FAILED, State.CANCELLED, State.EXPIRED} == TERMINAL
    assert {state: allowed_actions(state, "fine_tune") for state in State} == {
        State.QUEUED: ["cancel", "pause"],
        State.RUNNING: ["cancel", "pause"],
        State.PAUSED: ["cancel", "resume"],
        State.SUCCEEDED: ["extend"],
        State.FAILED: ["retry"],
        State.CANCELLED: ["retry"],
        State.EXPIRED: ["retry"],
    }
    assert allowed_actions(State.SUCCEEDED, "generate") == []
