"""The runner stops at the very next step, and says which way a recipe ended."""

import socket
from collections.abc import Generator, Iterator

import pytest

from core.errors import JobFailure
from worker.frames import BaseFolder, Done, Report, Run, Word
from worker.runner import Orders, carry_out

RUN = Run(
    run=7,
    job="job_1",
    attempt=1,
    kind="generate",
    spec={},
    base=BaseFolder(id="x", folder="/", embedded=True),
    cache="/",
    out="/",
)


class Asked(Orders):
    """Orders that say stop after a number of words, and keep what was told."""

    def __init__(self, stop_after: int) -> None:
        self.ours, theirs = socket.socketpair()
        super().__init__(theirs)
        self.stop_after = stop_after
        self.told: list[Word] = []

    def tell(self, run: Run, word: Word) -> None:
        self.told.append(word)
        if len(self.told) == self.stop_after:
            self._stopped_run = run.run

    def close(self) -> None:
        self.ours.close()
        self.connection.close()


@pytest.fixture
def asked() -> Iterator[Asked]:
    asked = Asked(stop_after=3)
    yield asked
    asked.close()


def steps(done: list[int]) -> Generator[Word]:
    for step in range(1, 100):
        done.append(step)
        yield Report(step=step, steps=100, message="training")
    yield Done()


def test_no_step_follows_a_stop(asked: Asked) -> None:
    done: list[int] = []
    last = carry_out(steps(done), RUN, asked)
    assert last.type == "stopped"
    assert done == [1, 2, 3]


def test_a_stop_for_another_run_is_not_for_this_one(asked: Asked) -> None:
    asked.stop_after = 0
    asked._stopped_run = 6
    done: list[int] = []
    assert carry_out(steps(done), RUN, asked).type == "done"
    assert len(done) == 99


def test_without_a_go_on_it_stops(asked: Asked) -> None:
    asked._go_on_until = 0.0
    done: list[int] = []
    assert carry_out(steps(done), RUN, asked).type == "stopped"
    assert done == [1]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (JobFailure("The loss is not finite.", code="non_finite_loss"), "non_finite_loss"),
        (MemoryError(), "out_of_memory"),
        (ZeroDivisionError("secret path /home/ada"), "internal_error"),
    ],
)
def test_how_a_recipe_fails(asked: Asked, error: Exception, code: str) -> None:
    def fail() -> Generator[Word]:
        yield Report(step=1, steps=2, message="training")
        raise error

    last = carry_out(fail(), RUN, asked)
    assert last.type == "failed"
    assert last.code == code
    assert "ada" not in last.detail
