"""Every pair of states, and what the row does with each."""

from itertools import product

import pytest

from core.jobs.states import FOLLOWERS, TERMINAL, State, allowed_actions

LEGAL = {
    ("queued", "running"),
    ("queued", "cancelled"),
    ("running", "queued"),
    ("running", "succeeded"),
    ("running", "failed"),
    ("running", "cancelled"),
}


@pytest.mark.parametrize(("start", "to"), list(product(State, State)))
def test_only_these_transitions_are_legal(start: State, to: State) -> None:
    assert (to in FOLLOWERS[start]) == ((start, to) in LEGAL)


def test_what_ended_stays_ended() -> None:
    assert {State.SUCCEEDED, State.FAILED, State.CANCELLED} == TERMINAL
    assert [allowed_actions(state) for state in State] == [["cancel"], ["cancel"], [], [], []]
