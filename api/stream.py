"""A job's events as they come: ``text/event-stream``, for as long as the job has not ended."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import anyio
import anyio.to_thread
from sse_starlette import EventSourceResponse
from sse_starlette.sse import SendTimeoutError
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from api.events import PAGE, Feed
from api.sight import Told
from core.db.engine import Database
from core.errors import NotAcceptable, NotFound, Unavailable
from core.jobs import service as jobs
from core.jobs.states import TERMINAL
from core.jobs.transition import events_after
from core.owners.service import Caller

MEDIA_TYPE = "text/event-stream"
PING_SECONDS = 15
SEND_SECONDS = 30.0
"""A client that takes nothing for so long does not listen."""
_AWAY_SECONDS = 1.0
_FAREWELL_SECONDS = 2.0
"""The library would cut streams that it sees ending; ours end by themselves."""
_JSON = ("application/json", "application/*", "*/*", "")


def is_wanted(accept: str) -> bool:
    """Whether a stream is named before JSON.

    Raises:
        NotAcceptable: neither is named.
    """
    for each in accept.lower().split(","):
        kind = each.partition(";")[0].strip()
        if kind in (MEDIA_TYPE, "text/*"):
            return True
        if kind in _JSON:
            return False
    raise NotAcceptable(f"Events come as application/json or as {MEDIA_TYPE}: ask for one of them.")


@dataclass(frozen=True)
class Page:
    """Events in their order. ``is_last``: the job has ended, and there are no others."""

    told: list[Told]
    is_last: bool

    @property
    def is_full(self) -> bool:
        return len(self.told) == PAGE


@dataclass(frozen=True)
class History:
    """What has happened to a job, for its owner. Reading it takes a thread."""

    database: Database
    caller: Caller
    job_id: str

    def page(self, after: int) -> Page:
        """
        Raises:
            NotFound: there is no such job of the caller's.
        """
        with self.database.read() as session:
            job = jobs.get(session, self.caller.owner, self.job_id)
            told = Told.of_many(events_after(session, self.job_id, after, PAGE))
            return Page(told, is_last=job.state in TERMINAL and len(told) < PAGE)


class EventStream(EventSourceResponse):
    """From ``first``, the page that comes after event ``after``, to the job's end."""

    def __init__(self, feed: Feed, history: History, first: Page, after: int) -> None:
        super().__init__(
            self._chunks(),
            ping=PING_SECONDS,
            send_timeout=SEND_SECONDS,
            shutdown_grace_period=_FAREWELL_SECONDS,
        )
        self._feed = feed
        self._history = history
        self._first = first
        self._seq = after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._feed.place(self._history.caller) as self._place:
            try:
                await super().__call__(scope, receive, send)
            except SendTimeoutError as error:
                raise ClientDisconnect from error

    async def _chunks(self) -> AsyncIterator[bytes]:
        page = self._first
        while True:
            for told in page.told:
                yield told.chunk
                self._seq = told.seq
                if told.ends:
                    return
            if page.is_last or self._place.is_over:
                return
            page = await self._next(is_behind=page.is_full)

    async def _next(self, *, is_behind: bool) -> Page:
        """What comes after ``_seq``: of the feed, or of the history where the feed has nothing that
        goes on from there."""
        if not is_behind:
            told = await self._feed.told(self._place, self._history.job_id, self._seq)
            if told or self._place.is_over:
                return Page(told, is_last=False)
        try:
            return await anyio.to_thread.run_sync(self._history.page, self._seq)
        except NotFound:
            return Page([], is_last=True)
        except Unavailable:
            await anyio.sleep(_AWAY_SECONDS)
            return Page([], is_last=False)
