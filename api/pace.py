"""How often a key may ask: a bucket of requests for each, which fills up again as time goes."""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api import errors
from core.config import Settings
from core.errors import TooMany
from core.owners.service import Caller

MAX_BUCKETS = 10_000
"""In memory; the one that was used longest ago is forgotten, and is full when it comes back."""

_ROUNDING = 1e-6
"""Of a request, so that whoever waits as told is served."""


@dataclass
class Bucket:
    requests: float
    at_seconds: float
    """When it held so many."""


class Pace:
    """Counts the requests of each name. One bucket holds those of a minute: a burst of so many is
    taken at once, and after it as many as trickle in.

    ``clock`` counts seconds and never goes back.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def wait_seconds(self, name: str) -> int:
        """0, and a request is taken out of the bucket; of an empty one, seconds until it is not."""
        now = self._clock()
        bucket = self._buckets.setdefault(name, Bucket(self.per_minute, now))
        self._buckets.move_to_end(name)
        if len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)
        per_second = self.per_minute / 60
        gained = (now - bucket.at_seconds) * per_second
        bucket.requests, bucket.at_seconds = min(self.per_minute, bucket.requests + gained), now
        if bucket.requests < 1 - _ROUNDING:
            return math.ceil((1 - bucket.requests) / per_second)
        bucket.requests -= 1
        return 0


class PaceCheck:
    """Refuses those who ask too often, before anything they sent is read. Each API process counts
    for itself. An administrator on this machine is not counted."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        cap = settings.max_requests_per_minute
        self.pace = None if cap is None else Pace(cap)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller: Caller | None = scope.get("state", {}).get("caller")
        if self.pace and caller and not _is_at_home(caller, scope):
            wait = self.pace.wait_seconds(caller.key_id)
            if wait:
                refusal = TooMany(
                    f"This key may send {self.pace.per_minute:,} requests a minute: come back in "
                    f"{wait} s, or wait for a job with `?wait=` or its event stream.",
                    code="too_often",
                    retry_after_seconds=wait,
                )
                await errors.on_service_error(Request(scope), refusal)(scope, receive, send)
                return
        await self.app(scope, receive, send)


def _is_at_home(caller: Caller, scope: Scope) -> bool:
    return "admin" in caller.scopes and _is_loopback((scope.get("client") or ("", 0))[0])


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:  # a socket without an address
        return False
