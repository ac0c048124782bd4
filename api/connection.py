"""One client's connection: cut where the client keeps it waiting, which uvicorn would for ever."""

import asyncio
import resource
from contextlib import suppress

from uvicorn.protocols.http.h11_impl import H11Protocol

PATIENCE_SECONDS = 30.0
"""Between two looks at a connection. One whose client has done nothing in between is cut."""


def take_descriptors() -> None:
    """Lets this process open as many files as the system allows it: a thousand, which is what it
    gets unasked, are the pictures of one upload."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS says "any number" and means fewer
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def max_connections() -> int:
    """Of this process: half of its descriptors, so that there are some for the work."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2


class Connection(H11Protocol):
    """Whoever keeps us waiting for a request, for the rest of one or to take an answer is looked at
    twice. A head that comes drop by drop is no head; of a body each drop counts."""

    _timer: asyncio.TimerHandle
    _moves = 0
    """Requests begun, pieces of their bodies received, and pieces of answers taken."""
    _seen: tuple[int, int] = (-1, 0)
    """Moves at the last look, and bytes that the client was to take then."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._look()
        if len(self.connections) > max_connections():
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._moves += self._is_asked

    def resume_writing(self) -> None:
        super().resume_writing()
        self._moves += 1

    @property
    def _is_asked(self) -> bool:
        """Whether a request is under way."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def _keeps_waiting(self) -> bool:
        more_is_to_come = not self._is_asked or self.cycle.more_body
        return more_is_to_come and not self.flow.read_paused

    def _look(self) -> None:
        moves, untaken = self._seen
        left = self.transport.get_write_buffer_size()
        is_stuck = left > 0 and left >= untaken > 0
        if moves == self._moves and (self._keeps_waiting or is_stuck):
            self.transport.abort()  # `close` would wait for what nobody takes
            return
        self._seen = self._moves, left
        self._timer = self.loop.call_later(PATIENCE_SECONDS, self._look)
