"""The state of the house in a few numbers, none of which says whose."""

import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core.db.engine import Database
from core.db.models import Delivery, Device, Job, Worker, in_lane, now
from core.errors import ServiceError

GOOD_SECONDS = 5.0
"""Figures are not read again sooner, however often somebody asks."""
_USES = 50
"""Nor sooner than so many times what it took to read them: jobs are counted one by one, so a large
house is counted less often, and a fiftieth of one connection is all that it ever costs."""


@dataclass(frozen=True)
class Figures:
    """``jobs`` by kind and state; ``depth`` counts those that wait for a device and for nothing
    else, ``oldest_seconds`` is how long the first of them has. ``workers`` by whether they are
    ready; ``devices`` of those workers by state; ``deliveries`` to webhooks by state, as long as
    they are kept."""

    jobs: Counter[tuple[str, str]] = field(default_factory=Counter)
    depth: int = 0
    oldest_seconds: float = 0.0
    workers: Counter[bool] = field(default_factory=Counter)
    devices: Counter[str] = field(default_factory=Counter)
    deliveries: Counter[str] = field(default_factory=Counter)


_JOBS = select(Job.kind, Job.state, func.count()).group_by(Job.kind, Job.state)
_QUEUE = select(func.count(), func.min(Job.queued_at)).where(in_lane)
_WORKERS = select(Worker.ready, func.count()).group_by(Worker.ready)
_DEVICES = (
    select(Device.state, func.count())
    .where(select(Worker.id).where(Worker.device_id == Device.id).exists())
    .group_by(Device.state)
)
_DELIVERIES = select(Delivery.state, func.count()).group_by(Delivery.state)


def read(session: Session) -> Figures:
    depth, oldest = session.execute(_QUEUE).one()
    return Figures(
        jobs=Counter({(kind, state): count for kind, state, count in session.execute(_JOBS)}),
        depth=depth,
        oldest_seconds=max(0.0, (now() - oldest).total_seconds()) if oldest else 0.0,
        workers=Counter(dict(session.execute(_WORKERS).all())),
        devices=Counter(dict(session.execute(_DEVICES).all())),
        deliveries=Counter(dict(session.execute(_DELIVERIES).all())),
    )


class Board:
    """Shows the figures to any number of readers. Safe to share between threads."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._lock = threading.Lock()
        self._figures: Figures | None = None
        self._good_until = 0.0

    def figures(self) -> Figures | None:
        """As they were a moment ago; None while the database does not tell."""
        # whoever comes while another reads takes what there is: a slow database fills no threads
        if time.monotonic() >= self._good_until and self._lock.acquire(blocking=False):
            try:
                self._read()
            finally:
                self._lock.release()
        return self._figures

    def _read(self) -> None:
        began = time.monotonic()
        try:
            with self.database.read() as session:
                self._figures = read(session)
        except ServiceError:
            self._figures = None
        ended = time.monotonic()
        self._good_until = ended + max(GOOD_SECONDS, _USES * (ended - began))
