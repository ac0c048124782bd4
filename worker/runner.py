"""The child process of a device, and the only one that loads torch.

It knows specs, files and frames; never the database, the broker or the store. It stops between two
steps when told to, or when nobody told it to go on for a whole lease.
"""

import contextlib
import logging
import os
import queue
import signal
import socket
import threading
from collections.abc import Generator

from core import log as logs
from core.clock import boot_seconds
from core.config import Settings
from core.errors import DISK_FULL, Interrupted, OutOfMemory, ServiceError
from core.files.space import is_full_disk
from core.tether import die_with_parent
from worker.device import parse_pinned
from worker.frames import (
    TO_RUNNER,
    Answer,
    Begun,
    Done,
    Failed,
    GoOn,
    Run,
    Stop,
    Stopped,
    Word,
    receive,
    send,
    spoils,
)
from worker.link import SOCKET

log = logging.getLogger(__name__)


class Orders:
    """What the worker said, read by a thread of its own. Ends this process with the line."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.runs: queue.Queue[Run] = queue.Queue()
        self._stopped_run = 0
        self._saves = False
        self._go_on_until = float("inf")

    def start(self) -> None:
        threading.Thread(target=self._listen, name="orders", daemon=True).start()

    def tell(self, run: Run, word: Word) -> None:
        send(self.connection, Answer(run=run.run, word=word))

    def must_stop(self, run: Run) -> bool:
        return self._stopped_run == run.run or boot_seconds() > self._go_on_until

    def must_save(self, run: Run) -> bool:
        """Before it stops. What nobody told to go on has lost its lease: nothing would be kept."""
        return self._saves and boot_seconds() <= self._go_on_until

    def _listen(self) -> None:
        while (body := receive(self.connection)) is not None:
            match TO_RUNNER.validate_json(body):
                case Run() as run:
                    self.runs.put(run)
                case GoOn(seconds=seconds):
                    self._go_on_until = boot_seconds() + seconds
                case Stop(run=number, save=save):
                    self._saves = save
                    self._stopped_run = number
        os._exit(0)  # nobody is left to work for; the main thread may be deep inside a kernel


def main() -> None:
    die_with_parent(with_signal=signal.SIGKILL)
    settings = Settings()
    logs.configure(settings.log_level)
    connection = socket.socket(fileno=int(os.environ.pop(SOCKET)))
    orders = Orders(connection)
    orders.start()

    from worker.recipes import Bench  # imports torch and diffusers: seconds, and only here

    bench = Bench(parse_pinned(settings.device))
    bench.check()
    send(connection, bench.ready())
    last: Word = Begun()
    while not spoils(last):
        run = orders.runs.get()
        with logs.bind(job=run.job, attempt=run.attempt):
            orders.tell(run, Begun())
            last = carry_out(bench.words(run), run, orders)
            orders.tell(run, last)


def carry_out(words: Generator[Word], run: Run, orders: Orders) -> Word:
    """Passes on what the recipe says, until it ends or must stop; returns the last word."""
    try:
        with contextlib.closing(words):
            for word in words:
                if isinstance(word, Done):
                    return word
                orders.tell(run, word)
                if orders.must_stop(run):
                    if orders.must_save(run):
                        orders.tell(run, words.throw(Interrupted()))
                    return Stopped()
    except Interrupted:
        return Stopped()  # there was nothing to save
    except OutOfMemory as full:
        return Failed(code=full.code, detail=full.detail, next_rung=full.next_rung)
    except ServiceError as error:
        return Failed(code=error.code, detail=error.detail)
    except MemoryError:
        return _out_of_memory()
    except Exception as error:
        if _sticks(error):
            raise
        if is_full_disk(error):
            return Failed(code=DISK_FULL, detail="The worker's disk is full.")
        if type(error).__name__ == "OutOfMemoryError":  # torch's, of whichever device
            return _out_of_memory()
        log.exception("the recipe failed")
        return Failed(
            code="internal_error",
            detail="The job met an error of Stillroom's own. The worker's log names it.",
        )
    raise AssertionError("a recipe ends with Done")


def _sticks(error: Exception) -> bool:
    """Whether the device failed and not the job: after such an error of CUDA's nothing in this
    process can use it again. The process ends, and the job is tried in another."""
    return type(error).__name__ == "AcceleratorError" or "CUDA error" in str(error)


def _out_of_memory() -> Failed:
    return Failed(
        code="out_of_memory",
        detail="The device's memory did not hold this job: ask for fewer pixels or a smaller "
        "batch, and leave `gradient_checkpointing` to auto.",
    )


if __name__ == "__main__":
    main()
