"""Sends what is due, for as long as a process lives: a few at a time, in a thread of its own.

Any number of processes may. Each tells a webhook one thing after another, gives an owner a share
of its places, and lets a receiver that failed rest a moment: one that is dead or slow keeps nobody
else waiting.
"""

import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup
from anyio.from_thread import start_blocking_portal

from core import crash
from core import log as logs
from core.config import Settings
from core.db.engine import Database
from core.db.models import Delivery
from core.errors import Unavailable
from core.webhooks import outbox
from core.webhooks.courier import Courier
from core.webhooks.guard import Guard
from core.webhooks.outbox import Answer, Call

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
PLACES = 16
"""Attempts at a time."""
PLACES_OF_OWNER = 4
TURN = 20
"""Deliveries that one webhook is sent before others have their turn."""
REST_SECONDS = 5.0
"""Of a webhook whose receiver failed, whatever else it is to be told."""
_AT_ONCE = 100
"""Webhooks looked at: more than fill all places, though some owner has his share."""


@contextmanager
def delivering(database: Database, settings: Settings) -> Iterator[None]:
    """Until the block ends, which waits for no receiver: what is being sent then is sent again."""
    deliverer = Deliverer(database, Courier(Guard.of(settings)))
    with start_blocking_portal(name="webhooks") as portal:
        running = portal.start_task_soon(deliverer.run)
        try:
            yield
        finally:
            running.cancel()


class Deliverer:
    """For one event loop. The database is asked in other threads."""

    def __init__(self, database: Database, courier: Courier) -> None:
        self.database = database
        self.courier = courier
        self._busy: dict[str, str] = {}
        """Webhooks that have their turn, with their owners."""
        self._rests_until: dict[str, float] = {}
        self._free = anyio.Event()

    async def run(self) -> None:
        """Looks when a place became free, and now and then, until it is cancelled."""
        async with anyio.create_task_group() as turns:
            while True:
                self._free = anyio.Event()
                try:
                    await self.look(turns)
                except Unavailable as error:
                    log.warning("webhooks cannot be looked at: %s", error.detail)
                except Exception:
                    log.exception("a look at webhooks failed; the next one comes")
                with anyio.move_on_after(LOOK_SECONDS):
                    await self._free.wait()

    async def look(self, turns: TaskGroup) -> None:
        """Begins the turns of webhooks that have something due, as far as there are places."""
        at = time.monotonic()
        self._rests_until = {
            webhook: until for webhook, until in self._rests_until.items() if until > at
        }
        if len(self._busy) >= PLACES:
            return
        held = Counter(self._busy.values())
        for webhook, owner in await anyio.to_thread.run_sync(self._waiting):
            if held.total() < PLACES and held[owner] < PLACES_OF_OWNER:
                held[owner] += 1
                self._busy[webhook] = owner
                turns.start_soon(self._turn, webhook)

    async def _turn(self, webhook: str) -> None:
        try:
            for _ in range(TURN):
                call = await anyio.to_thread.run_sync(self._claim, webhook)
                if call is None:
                    return
                if not await self._attempt(call):
                    break
        except Exception as error:  # the database's: what was claimed is due again after its lease
            log.warning("a webhook's turn broke off: %r", error, extra={"webhook": webhook})
            self._rest(webhook)
        finally:
            del self._busy[webhook]
            self._free.set()

    async def _attempt(self, call: Call) -> bool:
        """Whether the receiver took it."""
        with logs.bind(request_id=call.request_id, job=call.job_id):
            crash.point("webhooks: claimed")
            answer = await self.courier.carry(call)
            if answer.error:
                self._rest(call.webhook_id)
            settled = await anyio.to_thread.run_sync(self._settle, call, answer)
            log.log(
                logging.WARNING if settled and settled.state == "failed" else logging.INFO,
                "told a webhook of %s: %s",
                call.event,
                settled.state if settled else "it is gone, or sent by somebody else",
                extra={
                    "webhook": call.webhook_id,
                    "delivery": call.delivery_id,
                    "attempt": call.attempt,
                    "status": answer.status,
                },
            )
        return answer.error is None

    def _rest(self, webhook: str) -> None:
        self._rests_until[webhook] = time.monotonic() + REST_SECONDS

    def _waiting(self) -> list[tuple[str, str]]:
        passing = {*self._busy, *self._rests_until}
        with self.database.read() as session:
            return outbox.waiting(session, passing=passing, limit=_AT_ONCE)

    def _claim(self, webhook: str) -> Call | None:
        with self.database.write() as session:
            return outbox.claim(session, webhook)

    def _settle(self, call: Call, answer: Answer) -> Delivery | None:
        with self.database.write() as session:
            return outbox.settle(session, call, answer)
