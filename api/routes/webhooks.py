"""Webhooks: who is told of changes to jobs, and what came of it."""

from functools import partial

from fastapi import APIRouter, Response

from api import pages
from api.deps import (
    CursorDep,
    DatabaseDep,
    Limit,
    ReaderDep,
    RequestIdDep,
    SettingsDep,
    WriterDep,
)
from api.keyed import KeyedDocumentDep, made
from api.schemas.common import Page
from api.schemas.webhooks import DeliveryRead, WebhookCreate, WebhookMade, WebhookRead
from core.owners.idempotency import once
from core.webhooks import service as webhooks

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])


@router.post("", status_code=201)
def create_webhook(
    body: WebhookCreate,
    caller: WriterDep,
    settings: SettingsDep,
    database: DatabaseDep,
    keyed: KeyedDocumentDep,
    response: Response,
) -> WebhookMade:
    """Makes a webhook and shows its secret, to this request alone. Jobs that name it have it told
    of the events that it is for, signed as Standard Webhooks has it."""
    with database.write() as session:
        create = partial(
            webhooks.create,
            session,
            settings,
            owner=caller.owner,
            url=body.url,
            events=body.events,
            name=body.name,
        )
        find = partial(webhooks.get, session, caller.owner)
        webhook, replayed = once(session, keyed, create, find)
        last = webhooks.last_deliveries(session, [webhook])
        read = WebhookRead.of(webhook, last.get(webhook.id))
    response.headers.update(made(f"{router.prefix}/{webhook.id}", replayed))
    response.headers["Cache-Control"] = "no-store"
    return WebhookMade(**read.model_dump(), secret=webhook.secret)


@router.get("")
def list_webhooks(
    caller: ReaderDep, database: DatabaseDep, cursor: CursorDep, limit: Limit = pages.LIMIT
) -> Page[WebhookRead]:
    """Newest first."""
    with database.read() as session:
        found, next_cursor = webhooks.list_page(session, caller.owner, cursor=cursor, limit=limit)
        last = webhooks.last_deliveries(session, found)
        return Page(
            items=[WebhookRead.of(webhook, last.get(webhook.id)) for webhook in found],
            next_cursor=pages.encoded(next_cursor),
        )


@router.get("/{webhook_id}")
def read_webhook(webhook_id: str, caller: ReaderDep, database: DatabaseDep) -> WebhookRead:
    with database.read() as session:
        webhook = webhooks.get(session, caller.owner, webhook_id)
        last = webhooks.last_deliveries(session, [webhook])
        return WebhookRead.of(webhook, last.get(webhook_id))


@router.delete("/{webhook_id}", status_code=204)
def delete_webhook(webhook_id: str, caller: WriterDep, database: DatabaseDep) -> None:
    """With its deliveries. Jobs that name it tell nobody any more."""
    with database.write() as session:
        webhooks.delete(session, caller.owner, webhook_id)


@router.post("/{webhook_id}/test", status_code=202)
def test_webhook(
    response: Response,
    webhook_id: str,
    caller: WriterDep,
    database: DatabaseDep,
    request_id: RequestIdDep,
    keyed: KeyedDocumentDep,
) -> DeliveryRead:
    """Sends a `webhook.test`, whatever events it is for."""
    with database.write() as session:
        send = partial(webhooks.test, session, caller.owner, webhook_id, request_id=request_id)
        find = partial(webhooks.delivery, session, caller.owner, webhook_id)
        delivery, replayed = once(session, keyed, send, find)
        place = f"{router.prefix}/{webhook_id}/deliveries"
        response.headers.update(made(place, replayed))
        return DeliveryRead.of(delivery)


@router.get("/{webhook_id}/deliveries")
def list_deliveries(
    webhook_id: str,
    caller: ReaderDep,
    database: DatabaseDep,
    cursor: CursorDep,
    limit: Limit = pages.LIMIT,
) -> Page[DeliveryRead]:
    """Newest first. They are kept for seven days after they were delivered or given up."""
    with database.read() as session:
        found, next_cursor = webhooks.deliveries_page(
            session, caller.owner, webhook_id, cursor=cursor, limit=limit
        )
        return Page(
            items=[DeliveryRead.of(each) for each in found],
            next_cursor=pages.encoded(next_cursor),
        )


@router.post("/{webhook_id}/deliveries/{delivery_id}/redeliver", status_code=202)
def redeliver(
    webhook_id: str, delivery_id: str, caller: WriterDep, database: DatabaseDep
) -> DeliveryRead:
    """Sends it again at once, as it was, under the same `webhook-id`. Repeating is harmless."""
    with database.write() as session:
        return DeliveryRead.of(webhooks.redeliver(session, caller.owner, webhook_id, delivery_id))
