"""How long a runner may be silent."""

import pytest

from worker import pace as pace_module
from worker.pace import Pace

WATCHDOG_SECONDS = 300.0


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pace_module, "boot_seconds", clock)
    return clock


@pytest.fixture
def pace(clock: Clock) -> Pace:
    return Pace(WATCHDOG_SECONDS)


def take_steps(pace: Pace, clock: Clock, count: int, seconds: float) -> None:
    for step in range(1, count + 1):
        pace.listen()
        clock.seconds += seconds
        pace.hear(step)
    pace.listen()


def hangs_after(pace: Pace, clock: Clock, seconds: float) -> bool:
    """At that moment and not a second before."""
    begun = clock.seconds
    clock.seconds = begun + seconds
    early = pace.is_hung()
    clock.seconds += 1
    return pace.is_hung() and not early


def test_quick_steps_leave_the_least_patience(pace: Pace, clock: Clock) -> None:
    take_steps(pace, clock, 5, seconds=1)
    assert hangs_after(pace, clock, WATCHDOG_SECONDS)


def test_slow_steps_are_waited_for_ten_times(pace: Pace, clock: Clock) -> None:
    take_steps(pace, clock, 5, seconds=50)
    assert hangs_after(pace, clock, 500)


def test_one_slow_step_changes_little(pace: Pace, clock: Clock) -> None:
    take_steps(pace, clock, 5, seconds=40)
    clock.seconds += 2000
    pace.hear(6)
    pace.listen()
    assert hangs_after(pace, clock, 400)


def test_steps_that_are_told_together_are_counted_apart(pace: Pace, clock: Clock) -> None:
    take_steps(pace, clock, 1, seconds=5)
    clock.seconds += 500
    pace.hear(11)
    assert pace.patience_seconds == 10 * 50


def test_before_the_second_step_it_is_more_patient(pace: Pace, clock: Clock) -> None:
    pace.listen()
    assert hangs_after(pace, clock, 6 * WATCHDOG_SECONDS)
    take_steps(pace, clock, 1, seconds=900)  # the first step compiles, and tells no pace
    assert pace.patience_seconds == 6 * WATCHDOG_SECONDS


def test_any_word_is_a_sign_of_life(pace: Pace, clock: Clock) -> None:
    take_steps(pace, clock, 5, seconds=1)
    for _ in range(5):
        clock.seconds += WATCHDOG_SECONDS - 1
        assert not pace.is_hung()
        pace.hear()
        pace.listen()


def test_nobody_is_silent_while_nobody_listens(pace: Pace, clock: Clock) -> None:
    """Inputs are fetched first, and each word is dealt with: a store may be away for hours."""
    clock.seconds += 100_000
    assert not pace.is_hung()
    take_steps(pace, clock, 5, seconds=1)
    pace.hear(6)
    clock.seconds += 100_000
    assert not pace.is_hung()
    pace.listen()
    assert hangs_after(pace, clock, WATCHDOG_SECONDS)


def test_a_step_of_an_earlier_attempt_is_no_step(pace: Pace, clock: Clock) -> None:
    take_steps(pace, clock, 3, seconds=1)
    pace.hear(2)
    clock.seconds += 100
    pace.hear(3)
    assert pace.patience_seconds == WATCHDOG_SECONDS
