"""Webhooks and what they were told."""

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field, StringConstraints

from api.schemas.common import NO_CONTROLS, Name, Sent, storable
from core.db.models import Delivery, Webhook
from core.webhooks import service as webhooks
from core.webhooks.outbox import DeliveryState


class WebhookCreate(Sent):
    url: Annotated[
        str,
        StringConstraints(min_length=1, max_length=2000, pattern=NO_CONTROLS),
        AfterValidator(storable),
    ] = Field(description="https, and a public host, or one that the administrator has named.")
    events: list[webhooks.Event] = Field(
        min_length=1, max_length=16, description="What it is told of, of jobs that name it."
    )
    name: Name | None = None


class DeliveryRead(BaseModel):
    id: str = Field(description="Sent as `webhook-id`, each time the same.")
    event: str
    job: str | None
    state: DeliveryState
    attempts: int
    status: int | None = Field(description="Of the last answer, if there was one.")
    error: str | None
    created_at: datetime
    next_attempt_at: datetime | None
    delivered_at: datetime | None

    @classmethod
    def of(cls, delivery: Delivery) -> "DeliveryRead":
        return cls(
            id=delivery.id,
            event=delivery.event,
            job=delivery.job_id,
            state=delivery.state,
            attempts=delivery.attempts,
            status=delivery.status,
            error=delivery.error,
            created_at=delivery.created_at,
            next_attempt_at=delivery.next_attempt_at,
            delivered_at=delivery.ended_at if delivery.state == "delivered" else None,
        )


class WebhookRead(BaseModel):
    id: str
    url: str
    name: str | None
    events: list[str]
    created_at: datetime
    last_delivery: DeliveryRead | None

    @classmethod
    def of(cls, webhook: Webhook, last: Delivery | None) -> "WebhookRead":
        return cls(
            id=webhook.id,
            url=webhook.url,
            name=webhook.name,
            events=webhook.events,
            created_at=webhook.created_at,
            last_delivery=DeliveryRead.of(last) if last else None,
        )


class WebhookMade(WebhookRead):
    secret: str = Field(
        description="What deliveries are signed with. Only the request that made the webhook is "
        "shown it, also when it is sent again under its `Idempotency-Key`."
    )
