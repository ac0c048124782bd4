"""Jobs, as clients send and see them. Their specs are those of ``core.specs``."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from api.schemas.common import (
    NO_TEXT,
    FlawRead,
    Label,
    LabelValue,
    Name,
    Sent,
    StorableId,
    few_keys,
)
from core.db.models import Event, Job, now
from core.jobs.forecast import Forecast
from core.jobs.rates import Basis
from core.jobs.states import State
from core.specs import MAX_STEPS, SPECS, Kind

EventType = Literal["state", "progress", "sample", "artifact", "warning", "log"]


def _only_text(document: dict[str, Any]) -> dict[str, Any]:
    """Refuses what JSON can say and no database can keep, at any depth."""
    waiting: list[Any] = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            few_keys(value)
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str) and NO_TEXT.search(value):
            raise ValueError("a text in it holds a zero byte or half a surrogate pair")
    return document


SpecDocument = Annotated[
    dict[str, Any],
    AfterValidator(_only_text),
    WithJsonSchema(
        {"anyOf": [{"$ref": f"#/components/schemas/{spec.__name__}"} for spec in SPECS.values()]}
    ),
]


Labels = Annotated[dict[Label, LabelValue], BeforeValidator(few_keys), Field(max_length=16)]


class JobCreate(Sent):
    kind: Kind
    spec: SpecDocument
    name: Name | None = None
    priority: int = Field(0, ge=-100, le=100, description="Higher first. Above 0 needs admin.")
    labels: Labels = Field({})
    webhook: StorableId | None = Field(
        None, description="One of yours, that is told of its changes."
    )
    after: StorableId | None = Field(None, description="Begins once that job has succeeded.")
    deadline_seconds: float | None = Field(
        None, gt=0, le=31_536_000, description="From now: what was not begun by then expires."
    )


class ProgressRead(BaseModel):
    step: int
    steps: int
    fraction: float
    eta_seconds: float | None
    message: str | None


class Extension(Sent):
    steps: int = Field(ge=1, le=MAX_STEPS, description="Optimizer steps after those it has taken.")


class ForecastRead(BaseModel):
    steps: int
    seconds: float | None = Field(description="On a device of this server.")
    basis: Basis = Field(
        description="measured: the whole job, by your last of the same sort; calibrated: its steps "
        "alone, by other work of yours on this base; none: nothing of yours was measured here yet."
    )
    peak_memory_bytes: int = Field(description="On the device here that holds it best.")
    disk_bytes: int = Field(description="Of artifacts, checkpoints and caches, at most.")
    fits: bool = Field(description="false: no device here holds it, and it would be refused.")

    @classmethod
    def of(cls, told: Forecast) -> "ForecastRead":
        return cls(
            steps=told.steps,
            seconds=told.seconds,
            basis=told.basis,
            peak_memory_bytes=told.peak_memory_bytes,
            disk_bytes=told.disk_bytes,
            fits=told.fits,
        )


class UsageRead(BaseModel):
    device_seconds: float = Field(
        description="Of all attempts, to this moment; of what was drawn in company, its share."
    )
    queue_seconds: float = Field(description="That it waited for a device, to this moment.")

    @classmethod
    def of(cls, job: Job) -> "UsageRead":
        running, queued = timedelta(), timedelta()
        if job.state == State.RUNNING and job.claimed_at:
            running = (now() - job.claimed_at) * job.device_share
        if job.state == State.QUEUED and not job.waits:
            queued = now() - job.queued_at
        return cls(
            device_seconds=round(job.device_seconds + running.total_seconds(), 3),
            queue_seconds=round(job.queue_seconds + queued.total_seconds(), 3),
        )


class JobRead(BaseModel):
    id: str
    kind: Kind
    state: State
    name: str | None
    spec: dict[str, Any]
    progress: ProgressRead
    queue_position: int | None = Field(description="From 1, while it waits.")
    attempt: int
    priority: int
    labels: dict[str, str]
    error: FlawRead | None
    parent: str | None
    after: str | None
    webhook: str | None = Field(description="That is told of its changes; it may be gone by now.")
    result: dict[str, Any] | None
    worker: str | None
    device: str | None
    usage: UsageRead
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, job: Job, queue_position: int | None) -> "JobRead":
        return cls(
            id=job.id,
            kind=job.kind,
            state=job.state,
            name=job.name,
            spec=job.spec,
            progress=ProgressRead(**job.progress),
            queue_position=queue_position,
            attempt=job.attempt,
            priority=job.priority,
            labels=job.labels,
            error=FlawRead(**job.error) if job.error else None,
            parent=job.parent,
            after=job.after,
            webhook=job.webhook,
            result=job.result,
            worker=job.worker_id,
            device=job.device,
            usage=UsageRead.of(job),
            created_at=job.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
        )

    @classmethod
    def of_many(cls, jobs: Sequence[Job], positions: Mapping[str, int]) -> list["JobRead"]:
        return [cls.of(job, positions.get(job.id)) for job in jobs]


class EventRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    seq: int
    at: datetime
    type: EventType
    attempt: int
    data: dict[str, Any]

    @classmethod
    def of(cls, event: Event) -> "EventRead":
        return cls.model_validate(event)


class EventsRead(BaseModel):
    items: list[EventRead]
    next_after: int = Field(description="Send it as `after` to go on from here.")


class LogsRead(BaseModel):
    lines: list[str] = Field(description="Oldest first.")


class MetricsRead(BaseModel):
    """Each list has an entry a reading of the loss that was told, at most one a second; so has each
    of ``terms``."""

    step: list[int]
    loss: list[float]
    learning_rate: list[float | None]
    seconds_per_step: list[float | None]
    terms: dict[str, list[float | None]] = Field(description="Parts of the loss by name.")
