"""The child process of a device, and the only one that loads torch.

It knows specs, files and frames; never the database, the broker or the store. It stops between two
steps when told to, or when nobody told it to go on for a whole lease.
"""

import contextlib
import gc
import logging
import os
import queue
import signal
import socket
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Protocol

from core import log as logs
from core.clock import boot_seconds
from core.config import Settings
from core.errors import Interrupted
from core.tether import die_with_parent
from worker.failures import failure_of
from worker.frames import (
    LAST_WORDS,
    SOCKET,
    TO_RUNNER,
    Answer,
    Batch,
    Begun,
    Done,
    GoOn,
    Holds,
    Run,
    Stop,
    Stopped,
    Word,
    receive,
    send,
    spoils,
)

log = logging.getLogger(__name__)


class Orders:
    """What the worker said, read by a thread of its own. Ends this process with the line."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.batches: queue.Queue[Batch] = queue.Queue()
        self._stopped: dict[int, bool] = {}
        """Runs that are to end at their next step, and whether they are to be saved first."""
        self._go_on_until = float("inf")

    def start(self) -> None:
        threading.Thread(target=self._listen, name="orders", daemon=True).start()

    def tell(self, run: Run, word: Word) -> None:
        send(self.connection, Answer(run=run.run, word=word))

    def must_stop(self, run: Run) -> bool:
        return run.run in self._stopped or boot_seconds() > self._go_on_until

    def must_save(self, run: Run) -> bool:
        """Before it stops. What nobody told to go on has lost its lease: nothing would be kept."""
        return self._stopped.get(run.run, False) and boot_seconds() <= self._go_on_until

    def _listen(self) -> None:
        while (body := receive(self.connection)) is not None:
            match TO_RUNNER.validate_json(body):
                case Batch() as batch:
                    self._stopped.clear()  # of runs that have ended
                    self.batches.put(batch)
                case GoOn(seconds=seconds):
                    self._go_on_until = boot_seconds() + seconds
                case Stop(run=number, save=save):
                    self._stopped[number] = save
        os._exit(0)  # nobody is left to work for; the main thread may be deep inside a kernel


def main() -> None:
    die_with_parent(with_signal=signal.SIGKILL)
    settings = Settings()
    logs.configure(settings.log_level)
    connection = socket.socket(fileno=int(os.environ.pop(SOCKET)))
    orders = Orders(connection)
    orders.start()

    with all_kept():
        from worker.recipes import Bench  # imports torch and diffusers: seconds, and only here

    bench = Bench(settings, lambda bases: send(connection, Holds(bases=bases)))
    bench.check()
    bench.warm(settings)
    send(connection, bench.ready())
    spoilt = False
    while not spoilt:
        runs = orders.batches.get().runs
        for run in runs:
            orders.tell(run, Begun())
        if runs[0].kind == "generate":
            lasts = draw_all(bench, runs, orders)
        else:
            lasts = [carry_out(bench.train(runs[0]), runs[0], orders)]
        spoilt = any(map(spoils, lasts))


@contextlib.contextmanager
def all_kept() -> Iterator[None]:
    """What is made within the block stays to the end. Looking through it for garbage, again and
    again as it grows, is a quarter of the time that torch and diffusers take to import."""
    gc.disable()
    yield
    gc.freeze()
    gc.enable()


class Drawer(Protocol):
    def draw(
        self, runs: Sequence[Run], is_wanted: Callable[[int], bool]
    ) -> Iterator[tuple[int, Word]]:
        """Words about the runs by their place, for each to its last one, unless it is not wanted
        any more."""


def draw_all(drawer: Drawer, runs: Sequence[Run], orders: Orders) -> list[Word]:
    """Draws for all of them at once, and tells each what concerns it; returns the last words."""
    lasts: dict[int, Word] = {}

    def is_wanted(place: int) -> bool:
        if place not in lasts and orders.must_stop(runs[place]):
            end(place, Stopped())
        return place not in lasts

    def end(place: int, word: Word) -> None:
        lasts[place] = word
        orders.tell(runs[place], word)

    try:
        for place, word in drawer.draw(runs, is_wanted):
            if not is_wanted(place):
                continue
            if isinstance(word, LAST_WORDS):
                end(place, word)
            else:
                orders.tell(runs[place], word)
    except Exception as error:
        failure = failure_of(error)
        for place in range(len(runs)):
            if is_wanted(place):
                end(place, failure)
    return list(lasts.values())


def carry_out(words: Generator[Word], run: Run, orders: Orders) -> Word:
    """Passes on what the recipe says, until it ends or must stop; tells and returns the last
    word."""
    with logs.bind(job=run.job, attempt=run.attempt, request_id=run.request_id):
        last = _carry_out(words, run, orders)
    orders.tell(run, last)
    return last


def _carry_out(words: Generator[Word], run: Run, orders: Orders) -> Word:
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
    except Exception as error:
        return failure_of(error)
    raise AssertionError("a recipe ends with Done")


if __name__ == "__main__":
    main()
