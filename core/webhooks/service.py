"""What a client does with webhooks: make them, look, delete, test, send again. All by owner."""

import base64
import secrets
from collections.abc import Sequence
from typing import Literal, get_args

from sqlalchemy import delete as delete_rows
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core.config import Settings
from core.db.models import Delivery, Webhook
from core.db.pages import newest_first
from core.errors import NotFound, Problem, TooMany, Unprocessable
from core.ids import new_id
from core.owners import quotas
from core.webhooks import outbox
from core.webhooks.guard import Guard

Event = Literal[
    "job.queued",
    "job.running",
    "job.paused",
    "job.succeeded",
    "job.failed",
    "job.cancelled",
    "job.expired",
]
EVENTS: tuple[Event, ...] = get_args(Event)
MAX_WEBHOOKS = 20
"""Of one owner."""


def create(
    session: Session,
    settings: Settings,
    *,
    owner: str,
    url: str,
    events: Sequence[Event],
    name: str | None = None,
) -> Webhook:
    """A new webhook. Show its secret once: it is the only time that anyone reads it.

    Raises:
        WebhookRefused: the server does not call such addresses.
        TooMany: the owner has as many as they may.
    """
    checked = Guard.of(settings).check_url(url)
    quotas.hold(session, owner)
    count = session.scalar(select(func.count()).where(Webhook.owner == owner)) or 0
    if count >= MAX_WEBHOOKS:
        raise TooMany(
            f"You have {count} webhooks and {MAX_WEBHOOKS} are the most: delete one that you no "
            "longer need.",
            code="too_many_webhooks",
            retry_after_seconds=quotas.RETRY_SECONDS,
        )
    webhook = Webhook(
        id=new_id("whk"),
        owner=owner,
        url=str(checked),
        name=name,
        events=[event for event in EVENTS if event in events],
        secret=f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}",
    )
    session.add(webhook)
    session.flush()
    return webhook


def get(session: Session, owner: str, webhook_id: str) -> Webhook:
    query = select(Webhook).where(Webhook.id == webhook_id, Webhook.owner == owner)
    return _found(session.scalar(query), webhook_id)


def _found(webhook: Webhook | None, webhook_id: str) -> Webhook:
    if webhook is None:
        raise NotFound(f"There is no webhook '{webhook_id}'.")
    return webhook


def require(session: Session, owner: str, webhook_id: str) -> None:
    """That a job may name it.

    Raises:
        Unprocessable: the owner has no such webhook.
    """
    if not is_there(session, owner, webhook_id):
        detail = f"There is no webhook '{webhook_id}': `stillroom webhooks list` shows yours."
        problem = Problem("/webhook", "webhook_unknown", detail)
        raise Unprocessable(detail, code="webhook_unknown", errors=[problem])


def is_there(session: Session, owner: str, webhook_id: str) -> bool:
    query = select(Webhook.id).where(Webhook.id == webhook_id, Webhook.owner == owner)
    return session.scalar(query) is not None


def list_page(
    session: Session, owner: str, *, cursor: str | None = None, limit: int = 50
) -> tuple[list[Webhook], str | None]:
    """Newest first."""
    query = select(Webhook).where(Webhook.owner == owner)
    return newest_first(session, query, Webhook.id, cursor=cursor, limit=limit)


def last_deliveries(session: Session, webhooks: Sequence[Webhook]) -> dict[str, Delivery]:
    """By webhook, the newest one that it has."""
    newest = select(func.max(Delivery.id)).where(Delivery.webhook_id == Webhook.id)
    ids = select(newest.scalar_subquery()).where(Webhook.id.in_([each.id for each in webhooks]))
    found = session.scalars(select(Delivery).where(Delivery.id.in_(ids)))
    return {delivery.webhook_id: delivery for delivery in found}


def delete(session: Session, owner: str, webhook_id: str) -> None:
    """With its deliveries. Jobs that name it tell nobody any more."""
    query = select(Webhook).where(Webhook.id == webhook_id, Webhook.owner == owner)
    webhook = _found(session.scalar(query.with_for_update()), webhook_id)
    session.execute(delete_rows(Delivery).where(Delivery.webhook_id == webhook_id))
    session.delete(webhook)


def test(session: Session, owner: str, webhook_id: str, *, request_id: str | None) -> Delivery:
    """A delivery that tells of nothing, whatever events the webhook is for."""
    webhook = _found(outbox.held(session, owner, webhook_id), webhook_id)
    about = {"webhook": webhook.id}
    return outbox.write(session, webhook, outbox.TEST, about, request_id=request_id)


def deliveries_page(
    session: Session, owner: str, webhook_id: str, *, cursor: str | None = None, limit: int = 50
) -> tuple[list[Delivery], str | None]:
    """Newest first."""
    get(session, owner, webhook_id)
    query = select(Delivery).where(Delivery.webhook_id == webhook_id)
    return newest_first(session, query, Delivery.id, cursor=cursor, limit=limit)


def delivery(session: Session, owner: str, webhook_id: str, delivery_id: str) -> Delivery:
    """As it stays until this transaction ends."""
    get(session, owner, webhook_id)
    query = select(Delivery).where(Delivery.id == delivery_id, Delivery.webhook_id == webhook_id)
    found = session.scalar(query.with_for_update())
    if found is None:
        raise NotFound(f"There is no delivery '{delivery_id}' of '{webhook_id}'.")
    return found


def redeliver(session: Session, owner: str, webhook_id: str, delivery_id: str) -> Delivery:
    """The delivery, due again under the same id. One that is just being sent is left alone."""
    found = delivery(session, owner, webhook_id, delivery_id)
    outbox.send_again(found)
    return found
