"""What the server answers, as a client sees it: the shapes of the HTTP contract, nothing added."""

from typing import Any, Literal, NotRequired, TypedDict

JobState = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled", "expired"]
ENDED: frozenset[JobState] = frozenset({"succeeded", "failed", "cancelled", "expired"})
"""States that a job never leaves."""


class Flaw(TypedDict):
    """One thing wrong with a file or a dataset; ``images`` only in a dataset's report."""

    code: str
    detail: str
    images: NotRequired[list[str]]


class DatasetReport(TypedDict):
    ready: bool
    problems: list[Flaw]
    suggestions: list[Any]


class Dataset(TypedDict):
    id: str
    name: str
    kind: Literal["instance", "captioned"]
    images: int
    bytes: int
    sha256: str | None
    frozen: bool
    report: DatasetReport
    created_at: str


class Image(TypedDict):
    id: str
    filename: str
    width: int
    height: int
    bytes: int
    sha256: str
    caption: str | None
    problems: list[Flaw]


class UploadedFile(TypedDict):
    filename: str
    id: str | None
    kind: Literal["image", "caption", "metadata", "archive", "unknown"]
    problems: list[Flaw]


class Upload(TypedDict):
    items: list[UploadedFile]
    dataset: Dataset


class Progress(TypedDict):
    step: int
    steps: int
    fraction: float
    eta_seconds: float | None
    message: str | None


class Job(TypedDict):
    id: str
    kind: Literal["fine_tune", "distill", "generate"]
    state: JobState
    name: str | None
    spec: dict[str, Any]
    progress: Progress
    queue_position: int | None
    attempt: int
    priority: int
    labels: dict[str, str]
    error: Flaw | None
    parent: str | None
    after: str | None
    webhook: str | None
    result: dict[str, Any] | None
    worker: str | None
    device: str | None
    usage: dict[str, float]
    created_at: str
    started_at: str | None
    finished_at: str | None


class Forecast(TypedDict):
    steps: int
    seconds: float | None
    basis: Literal["measured", "calibrated", "none"]
    peak_memory_bytes: int
    disk_bytes: int
    fits: bool


class Event(TypedDict):
    seq: int
    at: str
    type: str
    attempt: int
    data: dict[str, Any]


class Place(TypedDict):
    job: str
    position: int
    eta_seconds: float | None


class Queue(TypedDict):
    depth: int
    running: int
    items: list[Place]


class Worker(TypedDict):
    id: str
    host: str
    device: str
    role: Literal["any", "train", "generate"]
    chip: str | None
    memory_bytes: int | None
    models: list[str]
    resident: list[str]
    job: str | None
    busy: bool
    beat_age_seconds: float
    ready: bool
    state: Literal["open", "drained", "quarantined"]
    quarantined: bool
    reason: str | None


class ArtifactFile(TypedDict):
    path: str
    bytes: int
    sha256: str


class Artifact(TypedDict):
    id: str
    job: str | None
    kind: Literal["lora", "unet", "image", "report"]
    role: str
    name: str
    format: str
    bytes: int
    sha256: str
    base: str | None
    layout: str | None
    files: list[ArtifactFile]
    metadata: dict[str, Any]
    created_at: str
    expires_at: str | None


class Brought(Artifact):
    """Beside the artifact, what it may not be though it was taken."""

    warnings: list[Flaw]


class Link(TypedDict):
    url: str
    expires_at: str


class Delivery(TypedDict):
    id: str
    event: str
    job: str | None
    state: Literal["pending", "delivered", "failed"]
    attempts: int
    status: int | None
    error: str | None
    created_at: str
    next_attempt_at: str | None
    delivered_at: str | None


class Webhook(TypedDict):
    id: str
    url: str
    name: str | None
    events: list[str]
    created_at: str
    last_delivery: Delivery | None


class WebhookMade(Webhook):
    """Beside the webhook, its secret, which is never shown again."""

    secret: str
