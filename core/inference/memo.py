"""What was made, by key, so that its second use is a look-up."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Memo(Generic[Key, Value]):
    """Lets go of those that were not used for longest. The newest stays, whatever its size."""

    def __init__(self, max_bytes: int, weigh: Callable[[Value], int]) -> None:
        self.max_bytes = max_bytes
        self.held_bytes = 0
        self._weigh = weigh
        self._held: OrderedDict[Key, tuple[Value, int]] = OrderedDict()

    def take(self, key: Key, make: Callable[[], Value]) -> Value:
        if key not in self._held:
            value = make()
            self._held[key] = value, self._weigh(value)
            self.held_bytes += self._held[key][1]
            self._make_room()
        self._held.move_to_end(key)
        return self._held[key][0]

    def clear(self) -> None:
        self._held.clear()
        self.held_bytes = 0

    def _make_room(self) -> None:
        while len(self._held) > 1 and self.held_bytes > self.max_bytes:
            _, (_, size_bytes) = self._held.popitem(last=False)
            self.held_bytes -= size_bytes
