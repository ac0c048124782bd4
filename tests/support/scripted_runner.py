"""A runner without torch: the prompt of a job says what it does. Real frames, real process."""

import errno
import os
import signal
import socket
import sys
import time
from collections.abc import Generator
from pathlib import Path

from core.errors import Interrupted, JobFailure, OutOfMemory
from core.tether import die_with_parent
from worker.frames import (
    SOCKET,
    Begun,
    Checkpoint,
    Done,
    Picture,
    Ready,
    Report,
    Run,
    Word,
    send,
    spoils,
)
from worker.runner import Orders, carry_out

STEP_SECONDS = 0.02


def act(run: Run) -> Generator[Word]:
    """``draw``: one picture. ``long``: steps until stopped, and a checkpoint if that is wanted.
    ``draw on``: a picture, and then the same. ``die``, ``fail``, ``hang``, ``draw and hang``: as
    they say. ``die late``: it saves a step before. ``say``: lines, before it dies."""
    script = str(run.spec.get("prompt") or run.spec["instance_prompt"])
    if script == "say":
        sys.stderr.write(f"reading {run.out}\nkey=abc\n")
        sys.stderr.flush()
    if script in ("die", "say"):
        os.kill(os.getpid(), signal.SIGKILL)
    if script == "hang":
        yield Report(step=1, steps=3, message="drawing")
        time.sleep(1000)
    if script == "die late":
        yield _saved(run, step=run.attempt)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)
    if script == "full disk":
        raise OSError(errno.ENOSPC, "No space left on device")
    if script == "fail":
        raise JobFailure("It was told to.", code="odd")
    if script == "too much" and run.first_rung < 2:
        raise OutOfMemory("It was told to.", next_rung=run.first_rung + 1)
    if script in ("draw on", "draw and hang"):
        yield _drawn(run, script)
    if script == "draw and hang":
        time.sleep(1000)
    steps = 100_000 if script in ("long", "draw on") else 3
    for step in range(1, steps + 1):
        time.sleep(STEP_SECONDS)
        try:
            yield Report(step=step, steps=steps, message="drawing")
        except Interrupted:
            if run.kind == "generate":
                raise
            yield _saved(run, step)
    yield _drawn(run, script)
    yield Done()


def _drawn(run: Run, prompt: str) -> Picture:
    path = Path(run.out) / "0.png"
    path.write_bytes(b"a picture")
    return Picture(role="image", path=str(path), prompt=prompt, seed=1)


def _saved(run: Run, step: int) -> Checkpoint:
    folder = Path(run.out) / f"step-{step:08d}"
    folder.mkdir()
    (folder / "facts.json").write_text("{}")
    return Checkpoint(step=step, path=str(folder))


def main() -> None:
    die_with_parent(with_signal=signal.SIGKILL)
    connection = socket.socket(fileno=int(os.environ.pop(SOCKET)))
    orders = Orders(connection)
    orders.start()
    if "--never-ready" in sys.argv:
        sys.exit(3)
    send(connection, Ready(chip="cpu", memory_bytes=None))
    lasts: list[Word] = []
    while not any(map(spoils, lasts)):
        runs = orders.batches.get().runs
        for run in runs:
            if run.spec.get("prompt") == "never begun":
                os.kill(os.getpid(), signal.SIGKILL)
            orders.tell(run, Begun())
        lasts = [carry_out(act(run), run, orders) for run in runs]


if __name__ == "__main__":
    main()
