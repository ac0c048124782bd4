"""What clients see, in the exact shapes of the contract, and what they send beside job specs."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

from core.datasets.intake import Item
from core.datasets.report import Finding, Summary
from core.db.models import Artifact, Dataset, Device, Event, Image, Job, Key, Worker, now
from core.jobs.forecast import Forecast
from core.jobs.rates import Basis
from core.jobs.states import State
from core.owners.service import Scope
from core.specs import SPECS, Id, Kind, NotYet
from core.workers import devices

Row = TypeVar("Row")
MAX_KEYS = 200
"""Of one JSON object: several times what the longest spec has."""
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
NO_CONTROLS = r"^[^\x00-\x1f\x7f]*$"
Name = Annotated[
    str,
    StringConstraints(min_length=1, max_length=200, pattern=NO_CONTROLS, strip_whitespace=True),
]
Label = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=r"^[\w./-]+$")]
LabelValue = Annotated[str, StringConstraints(max_length=255, pattern=NO_CONTROLS)]


def _few_keys(sent: Any) -> Any:
    """Before its fields are looked at: each one that is wrong would be explained."""
    if isinstance(sent, dict) and len(sent) > MAX_KEYS:
        raise ValueError(f"it has {len(sent)} fields where {MAX_KEYS} are the most")
    return sent


def _only_text(document: dict[str, Any]) -> dict[str, Any]:
    """Refuses what JSON can say and no database can keep, at any depth."""
    waiting: list[Any] = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            _few_keys(value)
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str) and _NO_TEXT.search(value):
            raise ValueError("a text in it holds a zero byte or half a surrogate pair")
    return document


SpecDocument = Annotated[
    dict[str, Any],
    AfterValidator(_only_text),
    WithJsonSchema(
        {"anyOf": [{"$ref": f"#/components/schemas/{spec.__name__}"} for spec in SPECS.values()]}
    ),
]


class Sent(BaseModel):
    """A body. What we do not know is refused by name, never passed over."""

    model_config = ConfigDict(extra="forbid")
    _few_fields = model_validator(mode="before")(_few_keys)


class Page(BaseModel, Generic[Row]):
    items: list[Row]
    next_cursor: str | None


class FlawRead(BaseModel):
    code: str
    detail: str


class FindingRead(FlawRead):
    images: list[str]

    @classmethod
    def of(cls, finding: Finding) -> "FindingRead":
        return cls(code=finding.code, detail=finding.detail, images=finding.images)


class ReportRead(BaseModel):
    ready: bool
    problems: list[FindingRead]
    suggestions: list[FindingRead]


class DatasetCreate(Sent):
    name: Name
    kind: Literal["instance", "captioned"]


class DatasetRead(BaseModel):
    id: str
    name: str
    kind: Literal["instance", "captioned"]
    images: int
    bytes: int
    sha256: str | None = Field(description="Of its content. null until a job uses it.")
    frozen: bool
    report: ReportRead
    created_at: datetime

    @classmethod
    def of(cls, dataset: Dataset, summary: Summary) -> "DatasetRead":
        return cls(
            id=dataset.id,
            name=dataset.name,
            kind=dataset.kind,
            images=summary.images,
            bytes=summary.bytes,
            sha256=dataset.sha256,
            frozen=dataset.sha256 is not None,
            report=ReportRead(
                ready=summary.report.ready,
                problems=[FindingRead.of(each) for each in summary.report.problems],
                suggestions=[FindingRead.of(each) for each in summary.report.suggestions],
            ),
            created_at=dataset.created_at,
        )


class ImageRead(BaseModel):
    id: str
    filename: str
    width: int
    height: int
    bytes: int = Field(description="As sent.")
    sha256: str = Field(description="Of the bytes as sent.")
    caption: str | None
    problems: list[FlawRead]

    @classmethod
    def of(cls, image: Image) -> "ImageRead":
        return cls(
            id=image.id,
            filename=image.filename,
            width=image.width,
            height=image.height,
            bytes=image.bytes,
            sha256=image.sha256,
            caption=image.caption,
            problems=[],
        )


class ItemRead(BaseModel):
    filename: str
    id: str | None
    kind: Literal["image", "caption", "metadata", "archive", "unknown"]
    problems: list[FlawRead]

    @classmethod
    def of(cls, item: Item) -> "ItemRead":
        return cls(
            filename=item.filename,
            id=item.id,
            kind=item.kind,
            problems=[FlawRead(code=flaw.code, detail=flaw.detail) for flaw in item.flaws],
        )


class UploadRead(BaseModel):
    items: list[ItemRead]
    dataset: DatasetRead


class JobCreate(Sent):
    kind: Kind
    spec: SpecDocument
    name: Name | None = None
    priority: int = Field(0, ge=-100, le=100, description="Higher first. Above 0 needs admin.")
    labels: Annotated[
        dict[Label, LabelValue], BeforeValidator(_few_keys), Field(max_length=16)
    ] = {}
    webhook: NotYet = None
    after: Id | None = Field(None, description="Begins once that job has succeeded.")
    deadline_seconds: float | None = Field(
        None, gt=0, le=31_536_000, description="From now: what was not begun by then expires."
    )


class ProgressRead(BaseModel):
    step: int
    steps: int
    fraction: float
    eta_seconds: float | None
    message: str | None


class Extension(BaseModel):
    model_config = ConfigDict(extra="forbid")

    steps: int = Field(ge=1, le=100_000, description="Optimizer steps after those it has taken.")


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
    device_seconds: float = Field(description="Of all attempts, to this moment.")
    queue_seconds: float = Field(description="That it waited for a device, to this moment.")

    @classmethod
    def of(cls, job: Job) -> "UsageRead":
        running, queued = timedelta(), timedelta()
        if job.state == State.RUNNING and job.claimed_at:
            running = now() - job.claimed_at
        if job.state == State.QUEUED and not job.waits:
            queued = now() - job.queued_at
        return cls(
            device_seconds=round(job.device_seconds + running.total_seconds(), 3),
            queue_seconds=round(job.queue_seconds + queued.total_seconds(), 3),
        )


class JobRead(BaseModel):
    id: str
    kind: str
    state: str
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
    type: str
    attempt: int
    data: dict[str, Any]

    @classmethod
    def of(cls, event: Event) -> "EventRead":
        return cls.model_validate(event)


class LogsRead(BaseModel):
    lines: list[str] = Field(description="Oldest first.")


class WorkerRead(BaseModel):
    id: str
    host: str
    device: str
    role: str
    chip: str | None = Field(description="What computes; null while its runner loads.")
    memory_bytes: int | None
    models: list[str] = Field(description="Base models on its disk.")
    resident: list[str] = Field(description="Of those, the ones in memory.")
    job: str | None = Field(description="What it runs; null for nothing, or somebody else's.")
    busy: bool
    beat_age_seconds: float
    ready: bool
    state: str = Field(description="open, drained or quarantined: only `open` claims jobs.")
    quarantined: bool
    reason: str | None = Field(description="Why it is not open.")

    @classmethod
    def of(cls, worker: Worker, device: Device, running: Job | None, caller: str) -> "WorkerRead":
        own = running is not None and running.owner == caller
        return cls(
            id=worker.id,
            host=worker.host.partition("/")[0],
            device=worker.device,
            role=worker.role,
            chip=worker.chip,
            memory_bytes=worker.memory_bytes,
            models=worker.bases,
            resident=worker.resident,
            job=running.id if running and own else None,
            busy=running is not None,
            beat_age_seconds=round(max(0.0, (now() - worker.beat_at).total_seconds()), 1),
            ready=worker.ready,
            state=device.state,
            quarantined=device.state == devices.QUARANTINED,
            reason=device.reason,
        )


class PlaceRead(BaseModel):
    job: str
    position: int
    eta_seconds: float | None = Field(description="Until its turn; null: nothing was measured.")


class QueueRead(BaseModel):
    depth: int = Field(description="Jobs of everybody that wait for a device.")
    running: int
    items: list[PlaceRead] = Field(description="Your own, in their order.")


class MetricsRead(BaseModel):
    """Each list has an entry a reading of the loss that was told, at most one a second; so has each
    of ``terms``."""

    step: list[int]
    loss: list[float]
    learning_rate: list[float | None]
    seconds_per_step: list[float | None]
    terms: dict[str, list[float | None]] = Field(description="Parts of the loss by name.")


class EventsRead(BaseModel):
    items: list[EventRead]
    next_after: int = Field(description="Send it as `after` to go on from here.")


class FileRead(BaseModel):
    path: str
    bytes: int
    sha256: str


class ArtifactRead(BaseModel):
    id: str
    job: str | None
    kind: str
    role: str
    name: str
    format: str
    bytes: int
    sha256: str
    base: str | None
    layout: str | None
    files: list[FileRead]
    metadata: dict[str, Any]
    created_at: datetime
    expires_at: datetime | None

    @classmethod
    def of(cls, artifact: Artifact) -> "ArtifactRead":
        return cls(
            id=artifact.id,
            job=artifact.job_id,
            kind=artifact.kind,
            role=artifact.role,
            name=artifact.name,
            format=artifact.format,
            bytes=artifact.bytes,
            sha256=artifact.sha256,
            base=artifact.base,
            layout=artifact.layout,
            files=[FileRead.model_validate(file) for file in artifact.files],
            metadata=artifact.facts,
            created_at=artifact.created_at,
            expires_at=artifact.expires_at,
        )


class ModelRead(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    id: str
    layout: str
    parameters: int = Field(description="Of the UNet.")
    native_size: int = Field(description="Pixels a side.")
    prediction_type: str
    licence: str
    available: bool = Field(description="Whether a live worker has it.")
    why_not: str | None


class KeyCreate(Sent):
    name: Name
    owner: Name | None = Field(None, description="Whose rows it sees. Default: yours.")
    scopes: list[Scope] = Field(["read", "write"], min_length=1, max_length=16)


class KeyRead(BaseModel):
    id: str
    owner: str
    name: str
    scopes: list[str]
    created_at: datetime

    @classmethod
    def of(cls, key: Key) -> "KeyRead":
        return cls.model_validate(key, from_attributes=True)


class KeyMade(KeyRead):
    key: str = Field(description="The key itself. It is never shown again.")


class HealthRead(BaseModel):
    status: Literal["ok"]


class ReadyRead(BaseModel):
    status: Literal["ready"]
    workers: int


class ProblemRead(BaseModel):
    """RFC 9457. `code` is stable; `detail` is a sentence for a person."""

    class ErrorRead(BaseModel):
        pointer: str
        code: str
        detail: str

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[ErrorRead] | None = None
    allowed_actions: list[str] | None = None
    retry_after: int | None = None
