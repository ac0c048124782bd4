"""A runner without torch, for storms of a thousand jobs: real frames, a real process, real files.

A generation draws one picture. A training carries a digest from step to step, so that whatever was
lost or done twice on the way shows in the file that it ends with.
"""

import ctypes
import errno
import hashlib
import json
import os
import resource
import signal
import socket
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from core import crash
from core.errors import Interrupted
from core.tether import die_with_parent
from tests.support import suspended
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

STEP_SECONDS = float(os.environ.get("LIGHT_STEP_SECONDS", "0.02"))
CHECKPOINT_EVERY = 5
_MEMORY_BYTES = 2 * 1024**3


def digest_after(seed: int, steps: int) -> str:
    """What a training of so many steps ends with, if nothing went wrong."""
    digest = str(seed)
    for step in range(1, steps + 1):
        digest = _stepped(digest, step)
    return digest


def act(run: Run) -> Generator[Word]:
    device = os.environ["STILLROOM_DEVICE"].partition("=")[0]
    if device == os.environ.get("LIGHT_BROKEN_DEVICE"):
        os.kill(os.getpid(), signal.SIGKILL)
    _do_harm(str(run.spec.get("prompt")), run.attempt)
    yield from _draw(run) if run.kind == "generate" else _train(run)


def _do_harm(prompt: str, attempt: int) -> None:
    """Some jobs do what their prompt says; those that may succeed later do it once."""
    match prompt:
        case "segfault":
            ctypes.string_at(0)
        case "exit":
            os._exit(3)
        case "spin":
            while True:
                pass
        case "devour":
            resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
            bytearray(2 * _MEMORY_BYTES)
        case "no disk" if attempt == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        case "off the bus" if attempt == 1:
            raise RuntimeError("CUDA error: unspecified launch failure")


def _draw(run: Run) -> Generator[Word]:
    steps = int(str(run.spec["steps"]))
    for step in range(1, steps + 1):
        time.sleep(STEP_SECONDS)
        yield Report(step=step, steps=steps, message="drawing")
    path = Path(run.out) / "0.png"
    path.write_bytes(f"{run.spec['prompt']} {run.spec['seed']}".encode())
    yield Picture(role="image", path=str(path), prompt=str(run.spec["prompt"]), seed=1)
    yield Done()


def _train(run: Run) -> Generator[Word]:
    steps, out = int(str(run.spec["steps"])), Path(run.out)
    step, digest = _resumed(run)
    while step < steps:
        time.sleep(STEP_SECONDS)
        step += 1
        digest = _stepped(digest, step)
        try:
            yield Report(step=step, steps=steps, message="training", seconds_per_step=STEP_SECONDS)
        except Interrupted:
            yield _saved(out, step, digest)
            raise
        if step % CHECKPOINT_EVERY == 0:
            yield _saved(out, step, digest)
    outputs = {}
    for role in ("lora", "lora_kohya", "report"):
        path = out / f"{role}.txt"
        path.write_text(digest)
        outputs[role] = str(path)
    yield Done(outputs=outputs)


def _stepped(digest: str, step: int) -> str:
    return hashlib.sha256(f"{digest} {step}".encode()).hexdigest()


def _resumed(run: Run) -> tuple[int, str]:
    if run.checkpoint is None:
        return 0, str(run.spec["seed"])
    state: dict[str, Any] = json.loads((Path(run.checkpoint) / "state.json").read_text())
    return state["step"], state["digest"]


def _saved(out: Path, step: int, digest: str) -> Word:
    folder = out / "checkpoints" / f"step-{step:08d}"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text(json.dumps({"step": step, "digest": digest}))
    return Checkpoint(step=step, path=str(folder))


def main() -> None:
    die_with_parent(with_signal=signal.SIGKILL)
    connection = socket.socket(fileno=int(os.environ.pop(SOCKET)))
    orders = Orders(connection)
    orders.start()
    crash.point("runner ready")
    send(connection, Ready(chip="light", memory_bytes=None))
    lasts: list[Word] = []
    while not any(map(spoils, lasts)):
        runs = orders.batches.get().runs
        for run in runs:
            orders.tell(run, Begun())
        crash.point("runner begun")
        lasts = [carry_out(act(run), run, orders) for run in runs]


if __name__ == "__main__":
    suspended.install()
    main()
