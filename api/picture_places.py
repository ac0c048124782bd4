"""Who decodes pictures: so many at a time, and fewer of one owner, or no other would ever begin."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from anyio import CapacityLimiter

PLACES = 8
"""Uploads, thumbnails and imported pictures at a time; there are 40 threads for everybody."""
PLACES_OF_OWNER = 6
"""One upload may be hours of work."""


class PicturePlaces:
    """Of one event loop. Who finds none waits."""

    def __init__(self) -> None:
        self._all = CapacityLimiter(PLACES)
        self._owners: WeakValueDictionary[str, CapacityLimiter] = WeakValueDictionary()
        """Of those who hold a place or wait for one."""

    @asynccontextmanager
    async def of(self, owner: str) -> AsyncIterator[None]:
        own = self._owners.setdefault(owner, CapacityLimiter(PLACES_OF_OWNER))
        async with own, self._all:
            yield
