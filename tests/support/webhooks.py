"""Webhooks and their deliveries for tests: made by their owner, sent by a process of ours."""

import ssl
from collections.abc import Sequence
from datetime import timedelta
from functools import cache
from typing import Any

import anyio
import httpx
from sqlalchemy import select, update

from core.config import Settings
from core.db.engine import Database
from core.db.models import Delivery, Webhook, now
from core.webhooks import courier
from core.webhooks import service as webhooks
from core.webhooks.courier import Courier, Resolve
from core.webhooks.deliverer import Deliverer
from core.webhooks.guard import Guard

LOOPBACK = ("127.0.0.1",)


def create(
    database: Database,
    *,
    owner: str = "ada",
    url: str = "https://hooks.example/hook",
    events: Sequence[webhooks.Event] = webhooks.EVENTS,
    hosts: Sequence[str] = LOOPBACK,
) -> Webhook:
    settings = Settings(webhook_hosts=list(hosts))
    with database.write() as session:
        return webhooks.create(session, settings, owner=owner, url=url, events=events)


def ring(database: Database, webhook: Webhook) -> Delivery:
    """Something it is to be told."""
    with database.write() as session:
        return webhooks.test(session, webhook.owner, webhook.id, request_id="asked")


def told(database: Database, webhook: Webhook | None = None) -> list[Delivery]:
    """The oldest first."""
    query = select(Delivery).order_by(Delivery.id)
    if webhook is not None:
        query = query.where(Delivery.webhook_id == webhook.id)
    with database.read() as session:
        return list(session.scalars(query))


def pass_time(database: Database, **ago: float) -> None:
    """As if everything had been planned so much earlier."""
    change(database, next_attempt_at=now() - timedelta(**ago))


def change(database: Database, **values: Any) -> None:
    with database.write() as session:
        session.execute(update(Delivery).values(**values))


def deliver(
    database: Database,
    *,
    hosts: Sequence[str] = LOOPBACK,
    resolve: Resolve = courier.resolve,
    tls: ssl.SSLContext | None = None,
) -> None:
    """One look of a process that has just begun, and all that follows from it."""

    async def look() -> None:
        deliverer = Deliverer(
            database, Courier(Guard(frozenset(hosts)), resolve=resolve, tls=tls or _public())
        )
        async with anyio.create_task_group() as turns:
            await deliverer.look(turns)

    anyio.run(look)


@cache
def _public() -> ssl.SSLContext:
    """As a courier has it by itself: made once, since that takes longer than a delivery."""
    return httpx.create_ssl_context()
