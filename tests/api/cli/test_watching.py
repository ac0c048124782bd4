"""Watching a job to its ending."""

import io
from typing import Any

import pytest
from rich.console import Console

from api import client as client_module
from api.commands import follow
from api.commands.jobs import ending
from tests.api.cli.conftest import Run
from tests.api.live import Answer, answering


def a_look(state: str, step: int, **more: Any) -> Any:
    progress = {
        "step": step,
        "steps": 500,
        "fraction": step / 500,
        "eta_seconds": 41.0,
        "message": "training",
    }
    look = {"id": "job_1", "state": state, "progress": progress, "queue_position": 3, "error": None}
    return look | more


@pytest.mark.parametrize(
    ("state", "code"), [("succeeded", 0), ("failed", 1), ("cancelled", 2), ("expired", 3)]
)
def test_watch_leaves_with_the_ending(
    state: str, code: int, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLROOM_KEY", "any")
    monkeypatch.setattr(client_module, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(follow, "LINE_SECONDS", 0)
    looks = iter([a_look("queued", 0), a_look("running", 120), a_look(state, 500)])
    event = {"seq": 1, "at": "", "type": "progress", "attempt": 1, "data": {"loss": 0.2213}}

    def answer(path: str) -> Answer:
        return (200, {"items": [event]} if "/events" in path else next(looks))

    with answering(answer) as url:
        left, out, err = run("watch", "job_1", "--url", url)
    assert (left, out) == (code, "")
    assert "number 3 in the queue" in err
    assert "120/500  loss 0.2213  41 s left" in err
    assert f"job_1 {state}" in err


def test_failed_job_says_why() -> None:
    error = {"code": "out_of_memory", "detail": "The card has 12 GB."}
    assert ending(a_look("failed", 3, error=error)) == "job_1 failed: The card has 12 GB."


def test_bar_at_a_terminal_shows_step_loss_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr(follow, "err", screen)
    follow._as_bar(iter([(a_look("running", 120), 0.25)]))
    assert isinstance(screen.file, io.StringIO)
    assert "120/500  loss 0.2500  41 s left" in screen.file.getvalue()


def test_interrupted_watch_leaves_the_job_alone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setenv("STILLROOM_KEY", "any")
    monkeypatch.setattr("api.commands.jobs.follow", interrupt)
    code, _, err = run("watch", "job_1")
    assert code == 130
    assert "goes on without us" in err
