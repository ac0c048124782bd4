"""How a training went, as series: what its progress rows told of its losses."""

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.db.models import Event


@dataclass(frozen=True)
class Metrics:
    """Lists of one length, an entry a reading of the loss that was told: at most one a second. None
    where it told nothing."""

    step: list[int] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    learning_rate: list[float | None] = field(default_factory=list)
    seconds_per_step: list[float | None] = field(default_factory=list)
    terms: dict[str, list[float | None]] = field(default_factory=dict)


def of(session: Session, job_id: str) -> Metrics:
    """Of what came of the job: steps that an attempt took in vain are left out, as a later one took
    them again."""
    told = session.execute(
        select(Event.attempt, Event.data)
        .where(Event.job_id == job_id, Event.type == "progress")
        .order_by(Event.seq)
    )
    rows: list[dict[str, Any]] = []
    last_attempt = 0
    for attempt, data in told:
        if data.get("loss") is None:
            continue
        if attempt != last_attempt:
            rows = [row for row in rows if row["loss_step"] < data["loss_step"]]
        last_attempt = attempt
        rows.append(data)
    names = dict.fromkeys(name for row in rows for name in row.get("terms", ()))
    return Metrics(
        step=[row["loss_step"] for row in rows],
        loss=[row["loss"] for row in rows],
        learning_rate=[row.get("learning_rate") for row in rows],
        seconds_per_step=[row.get("seconds_per_step") for row in rows],
        terms={name: [row.get("terms", {}).get(name) for row in rows] for name in names},
    )
