"""One feed for every client that waits for a job: a tick looks at all watched jobs at once.

Waiting is done on the event loop and holds no thread. A tick costs one query for whatever moved,
one for the jobs and one for the events that somebody wants of those, however many wait. Nothing is
asked while nobody waits.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from enum import Enum, auto

import anyio
import anyio.to_thread
from fastapi import Request
from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from api.sight import Sight, Told
from core.db.commits import Commits
from core.db.engine import Database
from core.db.models import Event, Job
from core.errors import Unauthorized, Unavailable
from core.jobs.standing import Standing
from core.jobs.states import TERMINAL
from core.owners import service as owners
from core.owners.service import Caller

log = logging.getLogger(__name__)

TICK_SECONDS = 0.25
COUNTED_TICK_SECONDS = 0.05
"""Where a counter says for next to nothing that nobody has committed anything."""
KEYS_SECONDS = 3.0
"""Between two looks at whether the keys of those who wait are still there."""
PAGE = 200
"""Events in one piece; a stream that is farther behind reads them by itself."""
_AT_ONCE = 100
"""Jobs in one query."""
_RETRY_SECONDS = 5
_SHARE_OF_OTHERS = 4
"""One in so many places is kept from whoever has all the rest."""


class TooManyWaiting(Unavailable):
    code = "too_many_waiting"


class Until(Enum):
    MOVED = auto()
    ENDED = auto()
    TOLD = auto()
    """As MOVED, and what is wanted are the events."""


@dataclass(eq=False)
class Place:
    """What somebody holds who may wait, from the first wait to the end of the answer."""

    owner: str
    key_id: str
    is_over: bool = False
    """The key was deleted, or the server ends: there is nothing left to wait for."""


Found = Sight | list[Told] | None
"""What a look brought; None: nothing that is of use to the waiter, who may look by itself."""


@dataclass(eq=False)
class Waiter:
    place: Place
    job_id: str
    seq: int
    until: Until
    looked_at: bool = False
    found: Found = None
    rung: asyncio.Event = field(default_factory=asyncio.Event)

    def is_met(self, last_seq: int, state: str) -> bool:
        if self.until is Until.ENDED:
            return state in TERMINAL
        return last_seq > self.seq

    def ring(self, found: Found = None) -> None:
        self.found = found
        self.rung.set()


@asynccontextmanager
async def feeding(
    database: Database, standing: Standing, *, max_waiting: int
) -> AsyncIterator["Feed"]:
    """A feed for as long as the server lives."""
    feed = Feed(database, standing, max_waiting=max_waiting)
    async with anyio.create_task_group() as group:
        group.start_soon(feed.run)
        try:
            yield feed
        finally:
            feed.close()
            group.cancel_scope.cancel()
    feed.dispose()


class Feed:
    """Of one event loop; all but ``_look`` runs there."""

    def __init__(self, database: Database, standing: Standing, *, max_waiting: int) -> None:
        self.places: set[Place] = set()
        self.waiters: set[Waiter] = set()
        self.max_waiting = max_waiting
        self._database = database
        self._standing = standing
        self._commits = Commits.of(database.engine.url)
        self._thread = anyio.CapacityLimiter(1)  # not of the threads that everybody shares
        self._called = asyncio.Event()
        self._closed = False
        self._away = False
        self._keys_due_at = 0.0

    @property
    def tick_seconds(self) -> float:
        return COUNTED_TICK_SECONDS if self._commits else TICK_SECONDS

    @contextmanager
    def place(self, caller: Caller) -> Iterator[Place]:
        """
        Raises:
            TooManyWaiting: none is free, or none for this owner.
        """
        own = sum(place.owner == caller.owner for place in self.places)
        of_others = self.max_waiting // _SHARE_OF_OTHERS
        if len(self.places) >= self.max_waiting or own >= self.max_waiting - of_others:
            raise TooManyWaiting(
                f"{len(self.places)} clients wait for jobs here, {own} of them yours, and no more "
                "may: ask without waiting, or come back in a moment.",
                retry_after_seconds=_RETRY_SECONDS,
            )
        place = Place(caller.owner, caller.key_id, is_over=self._closed)
        self.places.add(place)
        try:
            yield place
        finally:
            self.places.discard(place)

    async def hold(
        self, request: Request, caller: Caller, sight: Sight, until: Until, seconds: float
    ) -> Sight | None:
        """The job once it has moved or ended; None after ``seconds``, when the server ends, or when
        nobody is there any more to be answered.

        Raises:
            TooManyWaiting: no place is free.
            Unauthorized: the key was deleted meanwhile.
        """
        found: Found = None
        with self.place(caller) as place:
            async with anyio.create_task_group() as group:
                group.start_soon(_cancel_once_left, request, group.cancel_scope)
                with anyio.move_on_after(seconds):
                    found = await self._wait(Waiter(place, sight.job_id, sight.last_seq, until))
                group.cancel_scope.cancel()
            if place.is_over and not self._closed:
                raise Unauthorized("This key has been deleted.")
        return found if isinstance(found, Sight) else None

    async def told(self, place: Place, job_id: str, after: int) -> list[Told]:
        """The events after ``after``, once there are some; none where the stream had better look by
        itself: it is far behind, its place is over, or the job is gone."""
        found = await self._wait(Waiter(place, job_id, after, Until.TOLD))
        return found if isinstance(found, list) else []

    def close(self) -> None:
        """Everybody who waits goes now, and nobody waits any more: the server ends."""
        self._closed = True
        self._end(self.places)

    def dispose(self) -> None:
        if self._commits:
            self._commits.close()

    async def run(self) -> None:
        while True:
            await self._called.wait()
            await self._tick()
            await anyio.sleep(self.tick_seconds)

    async def _wait(self, waiter: Waiter) -> Found:
        if waiter.place.is_over:
            return None
        self.waiters.add(waiter)
        self._called.set()
        try:
            await waiter.rung.wait()
        finally:
            self.waiters.discard(waiter)
        return waiter.found

    async def _tick(self) -> None:
        waiters, keys = list(self.waiters), {place.key_id for place in self.places}
        if not waiters:
            self._called.clear()
            return
        try:
            found, gone = await anyio.to_thread.run_sync(
                self._look, waiters, keys, limiter=self._thread, abandon_on_cancel=True
            )
        except Exception as error:
            self._say_away(error)
            return
        self._away = False
        self._end({place for place in self.places if place.key_id in gone})
        for waiter in waiters:
            waiter.looked_at = True
            if waiter in found:
                waiter.ring(found[waiter])

    def _end(self, places: Collection[Place]) -> None:
        for place in places:
            place.is_over = True
        for waiter in self.waiters:
            if waiter.place.is_over:
                waiter.ring()

    def _say_away(self, error: Exception) -> None:
        """Once: those who wait go on, and the next tick tries again."""
        if self._away:
            return
        self._away = True
        if isinstance(error, Unavailable):
            log.warning("the feed cannot look, and goes on trying: %s", error.detail)
        else:
            log.error("the feed failed at a look, and goes on trying", exc_info=error)

    # In a thread

    def _look(
        self, waiters: Sequence[Waiter], keys: set[str]
    ) -> tuple[dict[Waiter, Found], set[str]]:
        """What there is for whom, and which of ``keys`` are gone."""
        at = time.monotonic()
        keys_due = at >= self._keys_due_at
        quiet = self._commits is not None and not self._commits.any_new()
        if quiet and not keys_due and all(waiter.looked_at for waiter in waiters):
            return {}, set()
        with self._database.read() as session:
            found = self._found(session, waiters)
            gone = keys - owners.present(session, keys) if keys_due else set()
        if keys_due:
            self._keys_due_at = at + KEYS_SECONDS
        return found, gone

    def _found(self, session: Session, waiters: Sequence[Waiter]) -> dict[Waiter, Found]:
        at = _positions(session, {waiter.job_id for waiter in waiters})
        gone = [waiter for waiter in waiters if waiter.job_id not in at]
        met = [each for each in waiters if each.job_id in at and each.is_met(*at[each.job_id])]
        readers = [
            each
            for each in met
            if each.until is Until.TOLD and at[each.job_id][0] - each.seq <= PAGE
        ]
        events = _events(session, readers)
        sights = self._sights(session, {w.job_id for w in met if w.until is not Until.TOLD})
        found: dict[Waiter, Found] = dict.fromkeys([*gone, *met])
        for waiter in met:
            if waiter.until is not Until.TOLD:
                found[waiter] = sights.get(waiter.job_id)
        for waiter in readers:
            found[waiter] = [told for told in events[waiter.job_id] if told.seq > waiter.seq]
        return found

    def _sights(self, session: Session, job_ids: Iterable[str]) -> dict[str, Sight]:
        return {
            job.id: Sight.of(session, self._standing, job)
            for some in _chunks(job_ids)
            for job in session.scalars(select(Job).where(Job.id.in_(some)))
        }


def _positions(session: Session, job_ids: Iterable[str]) -> dict[str, tuple[int, str]]:
    """Last event and state of each that is there."""
    return {
        job_id: (last_seq, state)
        for some in _chunks(job_ids)
        for job_id, last_seq, state in session.execute(
            select(Job.id, Job.last_seq, Job.state).where(Job.id.in_(some))
        )
    }


def _events(session: Session, readers: Sequence[Waiter]) -> dict[str, list[Told]]:
    """By job, what came after the one who is farthest behind."""
    after: dict[str, int] = {}
    for reader in readers:
        after[reader.job_id] = min(reader.seq, after.get(reader.job_id, reader.seq))
    events: dict[str, list[Told]] = {job_id: [] for job_id in after}
    for some in _chunks(after):
        newer = [and_(Event.job_id == job_id, Event.seq > after[job_id]) for job_id in some]
        for event in session.scalars(
            select(Event).where(or_(*newer)).order_by(Event.job_id, Event.seq)
        ):
            events[event.job_id].append(Told.of(event))
    return events


def _chunks(job_ids: Iterable[str]) -> Iterator[list[str]]:
    every = sorted(job_ids)
    for start in range(0, len(every), _AT_ONCE):
        yield every[start : start + _AT_ONCE]


async def _cancel_once_left(request: Request, waiting: anyio.CancelScope) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    waiting.cancel()
