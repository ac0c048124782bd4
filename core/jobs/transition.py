"""The one way in which a job's row changes: compare, swap, one event, and word to its webhook, in
one transaction."""

from collections.abc import Mapping
from typing import Any, Literal

from sqlalchemy import select, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import ColumnElement

from core.db.models import Event, Job
from core.jobs.states import FOLLOWERS, State
from core.webhooks import outbox

EventType = Literal["state", "progress", "sample", "artifact", "warning", "log"]


def move(
    session: Session,
    *where: ColumnElement[bool],
    job_id: str,
    start: State,
    to: State,
    reason: str | None = None,
    facts: Mapping[str, Any] | None = None,
    **values: Any,
) -> Job | None:
    """The job in state ``to``, with its event; None when it was no longer in ``start``.

    ``where`` narrows the comparison further, as the fence does with ``attempt``. ``facts`` go into
    the event.
    """
    assert to in FOLLOWERS[start], f"{start} -> {to} is no transition"
    data = {"state": to, "from": start, **(facts or {})} | ({"reason": reason} if reason else {})
    job = record(
        session,
        Job.state == start,
        *where,
        job_id=job_id,
        event=("state", data),
        state=to,
        **values,
    )
    if job is not None:
        outbox.ring(session, job)
    return job


def record(
    session: Session,
    *where: ColumnElement[bool],
    job_id: str,
    event: tuple[EventType, dict[str, Any]],
    **values: Any,
) -> Job | None:
    """The job with ``values`` and its next event, or None when ``where`` did not hold."""
    job = session.scalars(
        update(Job)
        .where(Job.id == job_id, *where)
        .values(last_seq=Job.last_seq + 1, **values)
        .returning(Job),
        execution_options={"populate_existing": True},
    ).one_or_none()
    if job is not None:
        kind, data = event
        session.add(
            Event(job_id=job.id, seq=job.last_seq, type=kind, attempt=job.attempt, data=data)
        )
    return job


def events_after(session: Session, job_id: str, after: int, limit: int) -> list[Event]:
    """Events with ``seq`` above ``after``, oldest first."""
    query = (
        select(Event)
        .where(Event.job_id == job_id, Event.seq > after)
        .order_by(Event.seq)
        .limit(limit)
    )
    return list(session.scalars(query))
