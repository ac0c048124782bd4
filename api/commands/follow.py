"""A job on the terminal until it ends: a bar with step, loss and time left; lines in a pipe."""

import time
from collections.abc import Iterator

from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from api.answers import ENDED, Event, Job
from api.client import Client
from api.commands.terminal import err, say, seconds_text

LINE_SECONDS = 5.0
"""Between two lines where there is no terminal, and before the first: most jobs need none."""


def follow(client: Client, job_id: str, name: str | None = None) -> Job:
    """The job once it has ended; meanwhile shows where it is, in lines under ``name`` or its id."""
    looks = _looks(client, job_id)
    return _as_bar(looks) if err.is_terminal else _as_lines(looks, name or f"{job_id} ")


def _looks(client: Client, job_id: str) -> Iterator[tuple[Job, float | None]]:
    """The job again and again, each time with its last known loss."""
    loss = None
    for job, events in client.watch(job_id):
        loss = _last_loss(events, loss)
        yield job, loss


def _last_loss(events: list[Event], before: float | None) -> float | None:
    losses = [e["data"]["loss"] for e in events if e["data"].get("loss") is not None]
    return losses[-1] if losses else before


def _as_bar(looks: Iterator[tuple[Job, float | None]]) -> Job:
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[words]}", markup=False),
        TimeElapsedColumn(),
        console=err,
        transient=True,
    )
    with bar:
        task = bar.add_task("", total=None, words="")
        for job, loss in looks:
            _draw(bar, task, job, loss)
    return job


def _draw(bar: Progress, task: TaskID, job: Job, loss: float | None) -> None:
    steps, running = job["progress"]["steps"] or None, job["state"] == "running"
    bar.update(
        task,
        description=job["progress"]["message"] if running else job["state"],
        total=steps if running else None,
        completed=job["progress"]["step"],
        words=_words(job, loss),
    )


def _as_lines(looks: Iterator[tuple[Job, float | None]], name: str) -> Job:
    told_at = time.monotonic()
    for job, loss in looks:
        now = time.monotonic()
        if now - told_at >= LINE_SECONDS and job["state"] not in ENDED:
            say(f"{name}{job['state']}  {_words(job, loss)}".rstrip())
            told_at = now
    return job


def _words(job: Job, loss: float | None) -> str:
    """``120/500  loss 0.2213  41 s left``, as far as known."""
    progress = job["progress"]
    words = []
    if job["state"] == "queued" and job["queue_position"]:
        words.append(f"number {job['queue_position']} in the queue")
    if job["state"] == "running" and progress["steps"]:
        words.append(f"{progress['step']}/{progress['steps']}")
    if loss is not None:
        words.append(f"loss {loss:.4f}")
    if job["state"] == "running" and progress["eta_seconds"] is not None:
        words.append(f"{seconds_text(progress['eta_seconds'])} left")
    return "  ".join(words)
