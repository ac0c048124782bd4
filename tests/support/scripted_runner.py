"""A runner without torch: the prompt of a job says what it does. Real frames, real process."""

import os
import signal
import socket
import sys
import time
from collections.abc import Generator
from pathlib import Path

from core.errors import JobFailure, OutOfMemory
from core.tether import die_with_parent
from worker.frames import Begun, Done, Picture, Ready, Report, Run, Word, send, spoils
from worker.link import SOCKET
from worker.runner import Orders, carry_out

STEP_SECONDS = 0.02


def act(run: Run) -> Generator[Word]:
    """``draw``: one picture. ``long``: steps until stopped. ``die``, ``fail``: as they say."""
    script = str(run.spec["prompt"])
    if script == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if script == "fail":
        raise JobFailure("It was told to.", code="odd")
    if script == "too much" and run.first_rung < 2:
        raise OutOfMemory("It was told to.", next_rung=run.first_rung + 1)
    steps = 100_000 if script == "long" else 3
    for step in range(1, steps + 1):
        time.sleep(STEP_SECONDS)
        yield Report(step=step, steps=steps, message="drawing")
    path = Path(run.out) / "0.png"
    path.write_bytes(b"a picture")
    yield Picture(role="image", path=str(path), prompt=script, seed=1)
    yield Done()


def main() -> None:
    die_with_parent(with_signal=signal.SIGKILL)
    connection = socket.socket(fileno=int(os.environ.pop(SOCKET)))
    orders = Orders(connection)
    orders.start()
    if "--never-ready" in sys.argv:
        sys.exit(3)
    send(connection, Ready(chip="cpu", memory_bytes=None))
    last: Word = Begun()
    while not spoils(last):
        run = orders.runs.get()
        orders.tell(run, Begun())
        last = carry_out(act(run), run, orders)
        orders.tell(run, last)


if __name__ == "__main__":
    main()
