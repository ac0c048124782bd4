"""The runner stops at the very next step, and says which way a recipe ended."""

import socket
from collections.abc import Callable, Generator, Iterator, Sequence

import pytest

from core.errors import JobFailure
from tests.support.log_lines import json_lines
from worker.frames import BaseFolder, Done, Failed, Report, Run, Word
from worker.runner import Orders, carry_out, draw_all

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
        self.told_of: dict[int, list[str]] = {}

    def tell(self, run: Run, word: Word) -> None:
        self.told.append(word)
        self.told_of.setdefault(run.run, []).append(word.type)
        if len(self.told) == self.stop_after:
            self._stopped[run.run] = False

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
    asked._stopped[6] = True
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


class Drawing:
    """Three drawings, five steps, and what befalls them."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.steps: list[int] = []

    def draw(
        self, runs: Sequence[Run], is_wanted: Callable[[int], bool]
    ) -> Iterator[tuple[int, Word]]:
        for step in range(1, 6):
            for place in range(len(runs)):
                if is_wanted(place):
                    self.steps.append(place)
                    yield place, Report(step=step, steps=5, message="drawing")
            if step == 3:
                yield 2, Failed(code="odd", detail="Its own.")
            if step == 4 and self.error:
                raise self.error
        for place in range(len(runs)):
            yield place, Done()


RUNS = [RUN.model_copy(update={"run": number}) for number in (7, 8, 9)]


def test_each_of_a_batch_has_an_end_of_its_own(asked: Asked) -> None:
    asked.stop_after = 5  # the second word about the second one
    drawing = Drawing()
    lasts = draw_all(drawing, RUNS, asked)
    assert sorted(last.type for last in lasts) == ["done", "failed", "stopped"]
    assert asked.told_of == {
        7: ["report"] * 5 + ["done"],
        8: ["report"] * 2 + ["stopped"],
        9: ["report"] * 3 + ["failed"],
    }
    assert drawing.steps.count(1) == 2, "nothing more was drawn of it"


def test_an_error_of_the_batch_ends_those_that_were_left(asked: Asked) -> None:
    asked.stop_after = 0
    lasts = draw_all(Drawing(MemoryError()), RUNS, asked)
    assert [last.type for last in lasts] == ["failed"] * 3
    assert [kinds[-1] for kinds in asked.told_of.values()] == ["failed"] * 3
    codes = [word.code for word in asked.told if isinstance(word, Failed)]
    assert codes == ["odd", "out_of_memory", "out_of_memory"]


def test_a_device_that_failed_ends_the_process_and_not_the_jobs(asked: Asked) -> None:
    asked.stop_after = 0
    with pytest.raises(RuntimeError, match="CUDA error"):
        draw_all(Drawing(RuntimeError("CUDA error: unspecified launch failure")), RUNS, asked)
    assert [kinds[-1] for kinds in asked.told_of.values()] == ["report", "report", "failed"]


@pytest.mark.parametrize("request_id", ["order-66", None])
def test_its_log_lines_name_the_request_that_made_the_job(
    asked: Asked, request_id: str | None
) -> None:
    def failing() -> Generator[Word]:
        raise RuntimeError
        yield Done()

    with json_lines() as lines:
        carry_out(failing(), RUN.model_copy(update={"request_id": request_id}), asked)
    (line,) = lines()
    assert (line["job"], line.get("request_id")) == ("job_1", request_id)
