"""Deliveries as rows: written with the change that they tell of, claimed, and settled.

A delivery's row is of the transaction that changed the job: no crash loses it, and nothing that was
rolled back is told. Whoever sends it holds nothing meanwhile but its word in the row, which counts
as broken after a lease: so it is sent by one at a time, and again if that one died.
"""

import json
import random
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from core.db.models import Delivery, Job, Webhook, is_pending, now
from core.ids import new_id

LEASE = timedelta(seconds=60)
"""Several times what an attempt may take."""
PAUSES_SECONDS = (5, 60, 300, 1_800, 7_200, 18_000, 21_600, 28_800)
"""Between one attempt and the next; nearly a day in all."""
JITTER = 0.1
"""Of a pause: receivers that come back are not met by everybody at once."""
TRIED_FOR = timedelta(days=1)
KEPT = timedelta(days=7)
"""After its end."""
GONE = 410
TEST = "webhook.test"
DeliveryState = Literal["pending", "delivered", "failed"]


@dataclass(frozen=True)
class Call:
    """A delivery as one attempt has it."""

    delivery_id: str
    attempt: int
    webhook_id: str
    url: str
    secret: str = field(repr=False)
    event: str
    body: str
    job_id: str | None
    request_id: str | None


@dataclass(frozen=True)
class Answer:
    """What came of an attempt.

    ``status`` is HTTP's, None where nobody answered. ``error`` is a sentence, None where the
    delivery was taken. ``retry_after_seconds`` is what the receiver asks for.
    """

    status: int | None = None
    error: str | None = None
    retry_after_seconds: float | None = None


def ring(session: Session, job: Job) -> None:
    """Has the job's webhook told of the state that the job has just come into, if it is to be."""
    if job.webhook is None:
        return
    webhook = held(session, job.owner, job.webhook)
    event = f"job.{job.state}"
    if webhook is not None and event in webhook.events:
        write(session, webhook, event, _about(job), job_id=job.id, request_id=job.request_id)


def held(session: Session, owner: str, webhook_id: str) -> Webhook | None:
    """The owner's webhook, which nobody deletes before this is committed: that would fail whatever
    else the transaction does."""
    query = select(Webhook).where(Webhook.id == webhook_id, Webhook.owner == owner)
    return session.scalar(query.with_for_update(read=True, key_share=True))


def write(
    session: Session,
    webhook: Webhook,
    event: str,
    data: dict[str, Any],
    *,
    job_id: str | None = None,
    request_id: str | None = None,
) -> Delivery:
    """A delivery that is due at once, of a webhook that is ``held``."""
    at = now()
    body = {"type": event, "timestamp": _text(at), "data": data}
    delivery = Delivery(
        id=new_id("dlv"),
        webhook_id=webhook.id,
        event=event,
        job_id=job_id,
        request_id=request_id,
        body=json.dumps(body, ensure_ascii=False, separators=(",", ":")),
        created_at=at,
        next_attempt_at=at,
        gives_up_at=at + TRIED_FOR,
    )
    session.add(delivery)
    session.flush()
    return delivery


def _about(job: Job) -> dict[str, Any]:
    """What its owner needs to know which job this is, and how it went."""
    return {
        "id": job.id,
        "kind": job.kind,
        "name": job.name,
        "state": job.state,
        "seq": job.last_seq,
        "attempt": job.attempt,
        "labels": job.labels,
        "error": job.error,
        "result": job.result,
        "created_at": _text(job.created_at),
        "started_at": _text(job.started_at),
        "finished_at": _text(job.finished_at),
    }


def _text(at: datetime | None) -> str | None:
    return at.isoformat().replace("+00:00", "Z") if at else None


def waiting(session: Session, *, passing: Collection[str], limit: int) -> list[tuple[str, str]]:
    """Webhooks that have something due, and their owners: the longest overdue first, without those
    of ``passing``. While nothing is due this is one look into an index."""
    due = (is_pending, Delivery.next_attempt_at <= now())
    if session.scalar(select(Delivery.id).where(*due).limit(1)) is None:
        return []
    first = select(Delivery.next_attempt_at).where(Delivery.webhook_id == Webhook.id, *due)
    since = first.order_by(Delivery.next_attempt_at).limit(1).scalar_subquery()
    query = select(Webhook.id, Webhook.owner).where(since.is_not(None), Webhook.id.not_in(passing))
    rows = session.execute(query.order_by(since).limit(limit))
    return [(webhook_id, owner) for webhook_id, owner in rows]


def claim(session: Session, webhook_id: str) -> Call | None:
    """The longest overdue delivery of a webhook, for one attempt; None where nothing is due, or
    somebody else has just claimed it. Needs a write transaction."""
    at = now()
    query = select(Delivery.id, Delivery.attempts, Webhook).join(
        Webhook, Webhook.id == Delivery.webhook_id
    )
    due = (Delivery.webhook_id == webhook_id, is_pending, Delivery.next_attempt_at <= at)
    found = session.execute(query.where(*due).order_by(Delivery.next_attempt_at).limit(1)).first()
    if found is None:
        return None
    delivery_id, attempts, webhook = found
    delivery = session.scalar(
        update(Delivery)
        .where(Delivery.id == delivery_id, Delivery.attempts == attempts, is_pending)
        .values(
            attempts=attempts + 1,
            tries=Delivery.tries + 1,
            is_sending=True,
            next_attempt_at=at + LEASE,
        )
        .returning(Delivery)
    )
    if delivery is None:
        return None
    return Call(
        delivery_id=delivery.id,
        attempt=delivery.attempts,
        webhook_id=webhook.id,
        url=webhook.url,
        secret=webhook.secret,
        event=delivery.event,
        body=delivery.body,
        job_id=delivery.job_id,
        request_id=delivery.request_id,
    )


def settle(session: Session, call: Call, answer: Answer) -> Delivery | None:
    """The delivery with what came of the attempt; None where it is gone, or somebody else has taken
    it up since."""
    delivery = session.scalar(
        select(Delivery)
        .where(Delivery.id == call.delivery_id, Delivery.attempts == call.attempt, is_pending)
        .with_for_update()
    )
    if delivery is None:
        return None
    again_at = _next_attempt(delivery, answer) if answer.error else None
    delivery.status, delivery.error = answer.status, answer.error
    delivery.is_sending, delivery.next_attempt_at = False, again_at
    if again_at is None:
        delivery.state = "failed" if answer.error else "delivered"
        delivery.ended_at = now()
    return delivery


def _next_attempt(delivery: Delivery, answer: Answer) -> datetime | None:
    """None: there is none."""
    if answer.status == GONE or delivery.tries > len(PAUSES_SECONDS):
        return None
    pause = PAUSES_SECONDS[delivery.tries - 1] * random.uniform(1 - JITTER, 1 + JITTER)
    seconds = max(pause, answer.retry_after_seconds or 0.0)
    if seconds > TRIED_FOR.total_seconds():
        return None
    at = now() + timedelta(seconds=seconds)
    return at if at <= delivery.gives_up_at else None


def send_again(delivery: Delivery) -> None:
    """Makes it due, as if it were new; one that is just being sent stays as it is."""
    at = now()
    if delivery.state == "pending" and delivery.is_sending:
        return
    delivery.state, delivery.tries = "pending", 0
    delivery.next_attempt_at, delivery.gives_up_at = at, at + TRIED_FOR
    delivery.status = delivery.error = delivery.ended_at = None


def forget_job(session: Session, job: Job) -> None:
    """What was told of a job goes with it."""
    if job.webhook is not None:
        of_it = (Delivery.webhook_id == job.webhook, Delivery.job_id == job.id)
        session.execute(delete(Delivery).where(*of_it))


def any_old(session: Session) -> bool:
    """A look that writes nothing."""
    old = select(Delivery.id).where(Delivery.ended_at < now() - KEPT)
    return session.scalar(old.limit(1)) is not None


def forget_old(session: Session) -> None:
    """Takes away what ended long enough ago."""
    session.execute(delete(Delivery).where(Delivery.ended_at < now() - KEPT))
