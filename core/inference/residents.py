"""Bases in the device's memory: those that were used last, as many as a budget holds."""

import ctypes
import gc
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress

import torch

from core.diffusion.components import Components
from core.inference.engine import Engine

Name = tuple[str, str, torch.dtype]
"""A base's id, or that of the artifact whose UNet stands in for its own; the base's folder, since
an id may come to mean another; and the precision."""


class Residents:
    """Lets go of those that were not used for longest, before another one is loaded."""

    def __init__(self, budget_bytes: int, make: Callable[[Components], Engine]) -> None:
        self.budget_bytes = budget_bytes
        self._make = make
        self._engines: OrderedDict[Name, Engine] = OrderedDict()

    @property
    def ids(self) -> list[str]:
        """As they are named, the one used last comes last."""
        return list(dict.fromkeys(base_id for base_id, *_ in self._engines))

    def take(self, name: Name, weigh: Callable[[], int], load: Callable[[], Components]) -> Engine:
        """The base, loaded if it is not here; ``weigh`` tells how many bytes it will hold then."""
        if name not in self._engines:
            self._let_go_until(self.budget_bytes - weigh())
            self._engines[name] = self._make(load())
        self._engines.move_to_end(name)
        return self._engines[name]

    def keep_only(self, name: Name) -> None:
        """A training needs all the room there is."""
        if name in self._engines:
            self._engines[name].forget()
        self._let_go([other for other in self._engines if other != name])

    def keep_only_with(self, components: Components) -> None:
        """Their picture needs it."""
        engines = self._engines.items()
        self._let_go([name for name, engine in engines if engine.components is not components])

    def _let_go(self, names: Sequence[Name]) -> None:
        for name in names:
            del self._engines[name]
        give_memory_back()

    def _let_go_until(self, room_bytes: int) -> None:
        sizes = [engine.held_bytes for engine in self._engines.values()]
        while self._engines and sum(sizes) > room_bytes:
            self._engines.popitem(last=False)
            sizes.pop(0)
            give_memory_back()


def give_memory_back() -> None:
    """What was let go of, to the device and to the host: Python's cycles, torch's cache, and the
    heap of the C library, which keeps what it has."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    with suppress(OSError, AttributeError):  # a C library without it
        ctypes.CDLL(None).malloc_trim(0)
