"""The tables. Every row a client can name has an owner; every change to a job leaves an event."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    ColumnElement,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    and_,
    literal_column,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class UtcDateTime(TypeDecorator[datetime]):
    """Aware UTC in and out; SQLite itself keeps no time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.replace(tzinfo=UTC) if value and value.tzinfo is None else value


def now() -> datetime:
    return datetime.now(UTC)


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_N_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012
        datetime: UtcDateTime,
        dict[str, Any]: JSON,
        list[Any]: JSON,
        str: String(255),
        int: BigInteger,
    }


class Key(Base):
    """Who may call: the hash of a random key, its owner and what it may do."""

    __tablename__ = "keys"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    owner: Mapped[str]
    name: Mapped[str]
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    scopes: Mapped[list[Any]]
    created_at: Mapped[datetime] = mapped_column(default=now)


class IdempotencyKey(Base):
    """A client's own name for a request that makes something: sent again, it makes nothing more."""

    __tablename__ = "idempotency_keys"

    owner: Mapped[str] = mapped_column(primary_key=True)
    call: Mapped[str] = mapped_column(primary_key=True)
    """Method and path."""
    key: Mapped[str] = mapped_column(primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64))
    """Of the body, as canonical JSON."""
    made: Mapped[str | None] = mapped_column(String(40))
    """The id of what it made; None only inside the transaction that makes it."""
    created_at: Mapped[datetime] = mapped_column(default=now, index=True)


class Deletion(Base):
    """What is to go from the store, its rows being gone already, or unless they come."""

    __tablename__ = "deletions"

    prefix: Mapped[str] = mapped_column(primary_key=True)
    """A folder, where it ends with a slash, or the key of a file."""
    since: Mapped[datetime | None]
    """So long its rows may yet come, and nothing goes."""
    until: Mapped[datetime | None]
    """So long somebody may still write there, and it is looked after again."""


class AddedBase(Base):
    """A base model that the administrator added. Each worker tells whether its disk holds it."""

    __tablename__ = "bases"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    place: Mapped[str]
    """Its folder's name on every disk, another for whatever would draw otherwise."""
    layout: Mapped[str] = mapped_column(String(20))
    widths: Mapped[list[Any]]
    native_size: Mapped[int]
    prediction_type: Mapped[str] = mapped_column(String(20))
    own_vae: Mapped[bool] = mapped_column(Boolean)
    """Not the one that works in half precision in its place."""
    licence: Mapped[str]
    sha256: Mapped[str] = mapped_column(String(64))
    """Of the file, or of the folder's names and hashes."""
    created_at: Mapped[datetime] = mapped_column(default=now)


class Dataset(Base):
    __tablename__ = "datasets"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    owner: Mapped[str] = mapped_column(index=True)
    name: Mapped[str]
    kind: Mapped[str] = mapped_column(String(20))
    sha256: Mapped[str | None] = mapped_column(String(64))
    """Of its content; set when a job first uses it, or at the end of an import. From then on it is
    frozen."""
    folder: Mapped[str | None] = mapped_column(Text)
    """Where it was imported from, the same on every host: its pictures lie there still."""
    created_at: Mapped[datetime] = mapped_column(default=now)


class Image(Base):
    __tablename__ = "images"
    __table_args__ = (
        UniqueConstraint("dataset_id", "sha256"),
        Index("ix_images_dataset_id_stored_sha256", "dataset_id", "stored_sha256", "id"),
        Index("ix_images_dataset_id_id", "dataset_id", "id"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"))
    filename: Mapped[str]
    """As the client named it: text to show, never a path."""
    width: Mapped[int]
    height: Mapped[int]
    bytes: Mapped[int]
    sha256: Mapped[str] = mapped_column(String(64))
    """Of the bytes as sent, or as they lie; what is stored is re-encoded, without metadata."""
    stored_sha256: Mapped[str | None] = mapped_column(String(64))
    """Of what is stored: the same pixels in any format have the same. NULL: taken before it was
    kept."""
    stored_bytes: Mapped[int | None]
    """What that takes. NULL: nothing is stored, or it was taken before this was kept."""
    turned: Mapped[bool] = mapped_column(default=False)
    """Whether the camera said that it was held sideways; what is stored is upright."""
    caption: Mapped[str | None] = mapped_column(Text)
    store_key: Mapped[str | None]
    """None of one that was imported: nothing of it is stored."""
    path: Mapped[str | None] = mapped_column(Text)
    """Of the file that an imported one lies in, below its dataset's folder."""
    offset: Mapped[int | None]
    """Where it begins in that file; 0: it is all of it."""
    created_at: Mapped[datetime] = mapped_column(default=now)


class Lane(Base):
    """Where jobs wait that differ in age alone: the oldest goes first, and a claim looks at the
    heads of lanes only, however long they are."""

    __tablename__ = "lanes"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    """The hash of the rest."""
    owner: Mapped[str]
    kind: Mapped[str] = mapped_column(String(20))
    base: Mapped[str]
    also_base: Mapped[str | None]
    priority: Mapped[int]
    floor: Mapped[str] = mapped_column(String(40), default="")
    """A job's id: below it, none waits here but those that came back (``core.jobs.lanes``)."""


class Job(Base):
    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_owner_id", "owner", "id"),
        Index("ix_jobs_owner_state_id", "owner", "state", "id"),
        Index("ix_jobs_lane_started_at", "lane", "started_at"),
        Index("ix_jobs_finished_at", "finished_at"),
        Index("ix_jobs_swept_finished_at", "swept", "finished_at"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    owner: Mapped[str]
    kind: Mapped[str] = mapped_column(String(20))
    state: Mapped[str] = mapped_column(String(20))
    base: Mapped[str]
    """The base model that lends all but perhaps the UNet: only a worker that has it may take the
    job."""
    also_base: Mapped[str | None]
    """Another one that it needs: what a student begins with."""
    name: Mapped[str | None]
    spec: Mapped[dict[str, Any]]
    labels: Mapped[dict[str, Any]]
    priority: Mapped[int] = mapped_column(default=0)
    lane: Mapped[str] = mapped_column(String(32))
    batch_key: Mapped[str | None] = mapped_column(String(32))
    """Of a drawing: those with the same one may be computed together."""
    pictures: Mapped[int] = mapped_column(default=0)
    """That a drawing makes."""
    row_bytes: Mapped[int] = mapped_column(default=0)
    """Of a GPU's memory, that each of them takes while it is drawn; 0: nobody knows."""
    after: Mapped[str | None] = mapped_column(String(40))
    """The job whose success it waits for, as its client said."""
    waits: Mapped[int] = mapped_column(default=0)
    """Jobs among its inputs that have not ended: while there is one, it is in no lane."""
    expires_at: Mapped[datetime | None]
    """When it is no longer worth beginning."""

    attempt: Mapped[int] = mapped_column(default=0)
    """The fence: raised by each claim, named by every later write."""
    worker_id: Mapped[str | None] = mapped_column(String(40))
    device: Mapped[str | None]
    beat: Mapped[int] = mapped_column(default=0)
    """Raised by the worker that lives. Only whether it moves is looked at, never a clock."""
    cancel_requested: Mapped[bool] = mapped_column(Boolean, default=False)
    pause_requested: Mapped[bool] = mapped_column(Boolean, default=False)
    pauses: Mapped[int] = mapped_column(default=0)
    """Attempts that were not in vain: they got further, or somebody asked for their end, or they
    made way, or the disk was full."""
    parent: Mapped[str | None] = mapped_column(String(40))
    """The job that this one goes on from."""
    checkpoints: Mapped[list[Any]] = mapped_column(default=list)
    """``[{step, files: [{path, bytes, sha256, store_key}]}]``, the newest first."""
    rung: Mapped[int] = mapped_column(default=0)
    """How far down the memory ladder it begins: those above were too much."""
    losses: Mapped[int] = mapped_column(default=0)
    """Times a runner died while it worked on this job and its worker lived on, since it last got
    further."""
    not_before: Mapped[datetime | None]
    shuns: Mapped[str | None]
    """The device that lost it last: another one is preferred, for a while."""

    last_seq: Mapped[int] = mapped_column(default=0)
    progress: Mapped[dict[str, Any]]
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    device_seconds: Mapped[float] = mapped_column(default=0.0)
    device_share: Mapped[float] = mapped_column(default=1.0)
    """Of the device, that its present attempt has: below 1 while it is drawn in company."""

    request_id: Mapped[str | None] = mapped_column(String(64))
    """Of the request that made it, for whoever looks for it in logs."""
    webhook: Mapped[str | None] = mapped_column(String(40))
    """That is told of its changes. It may be gone by now."""

    created_at: Mapped[datetime] = mapped_column(default=now)
    queued_at: Mapped[datetime] = mapped_column(default=now)
    queue_seconds: Mapped[float] = mapped_column(default=0.0)
    started_at: Mapped[datetime | None]
    claimed_at: Mapped[datetime | None]
    """When its present attempt began."""
    finished_at: Mapped[datetime | None]
    swept: Mapped[int] = mapped_column(default=0)
    """Once it has ended: how far ``core.retention`` has tidied up after it."""


# Written out, not bound: only so does a query's planner know the partial indexes below again, and
# that these states are rare among the jobs of an owner.
_QUEUED: ColumnElement[str] = literal_column("'queued'")
_PAUSED: ColumnElement[str] = literal_column("'paused'")
_RUNNING: ColumnElement[str] = literal_column("'running'")
_NONE: ColumnElement[int] = literal_column("0")
in_lane = and_(Job.state == _QUEUED, Job.waits == _NONE)
"""Of a job that waits for a device and for nothing else."""
came_back = and_(in_lane, Job.queued_at != Job.created_at)
"""Of one that stood in its lane before, or came into it later than it was made."""
batched = and_(in_lane, Job.batch_key.is_not(None))
"""Of one that may be begun together with others."""
takes_room = Job.state.in_((_QUEUED, _PAUSED))
"""Of a job that counts against its owner's cap."""
# With its worker, which it always has: an update that compares the state alone, as every fenced one
# does, has no use for this index. PostgreSQL would take it for smaller than that of ids, and walk
# through all that ran since the last vacuum.
is_running = and_(Job.state == _RUNNING, Job.worker_id.is_not(None))
may_expire = and_(Job.state == _QUEUED, Job.started_at.is_(None), Job.expires_at.is_not(None))


def _partial(name: str, *columns: Any, of: ColumnElement[bool]) -> Index:
    return Index(name, *columns, postgresql_where=of, sqlite_where=of)


_partial("ix_jobs_in_lane", Job.lane, Job.id, of=in_lane)
_partial("ix_jobs_came_back", Job.lane, Job.id, of=came_back)
_partial("ix_jobs_batched", Job.batch_key, Job.id, of=batched)
_partial("ix_jobs_running", Job.worker_id, of=is_running)
_partial("ix_jobs_may_expire", Job.expires_at, of=may_expire)


class Webhook(Base):
    """An address of an owner's that is told of changes to their jobs."""

    __tablename__ = "webhooks"
    __table_args__ = (Index("ix_webhooks_owner_id", "owner", "id"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    owner: Mapped[str]
    url: Mapped[str] = mapped_column(Text)
    name: Mapped[str | None]
    events: Mapped[list[Any]]
    secret: Mapped[str]
    """As its owner got it, since every delivery is signed with it."""
    created_at: Mapped[datetime] = mapped_column(default=now)


class Delivery(Base):
    """One change that a webhook is told of: written with the change, kept a while after its end."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        Index("ix_webhook_deliveries_webhook_id_id", "webhook_id", "id"),
        Index("ix_webhook_deliveries_ended_at", "ended_at"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id"))
    event: Mapped[str] = mapped_column(String(40))
    job_id: Mapped[str | None] = mapped_column(String(40))
    request_id: Mapped[str | None] = mapped_column(String(64))
    """Of the request that made the job, or asked for the test."""
    body: Mapped[str] = mapped_column(Text)
    """As it is sent and signed, each time the same."""
    state: Mapped[str] = mapped_column(String(20), default="pending")
    attempts: Mapped[int] = mapped_column(default=0)
    """The fence: raised by each claim, named by the write that follows."""
    tries: Mapped[int] = mapped_column(default=0)
    """Attempts since it was made or last asked for again: how long the next pause is."""
    is_sending: Mapped[bool] = mapped_column(Boolean, default=False)
    """An attempt is under way, or whoever made it died."""
    status: Mapped[int | None]
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(default=now)
    next_attempt_at: Mapped[datetime | None] = mapped_column(default=now)
    """While an attempt is under way: when it counts as lost."""
    gives_up_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]


_PENDING: ColumnElement[str] = literal_column("'pending'")
is_pending = Delivery.state == _PENDING

_partial("ix_webhook_deliveries_due", Delivery.next_attempt_at, of=is_pending)
_partial(
    "ix_webhook_deliveries_due_of", Delivery.webhook_id, Delivery.next_attempt_at, of=is_pending
)


class JobLog(Base):
    """The last lines of what a job's runner said."""

    __tablename__ = "job_logs"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    lines: Mapped[list[Any]]


class JobInput(Base):
    """Which job needs which dataset, artifact or job: what "still in use" is answered from."""

    __tablename__ = "job_inputs"
    __table_args__ = (Index("ix_job_inputs_input", "kind", "input_id"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    kind: Mapped[str] = mapped_column(String(20), primary_key=True)
    input_id: Mapped[str] = mapped_column(String(40), primary_key=True)


class Event(Base):
    """Append-only: what happened to a job, numbered from 1 without a gap."""

    __tablename__ = "events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(default=now)
    type: Mapped[str] = mapped_column(String(20))
    attempt: Mapped[int]
    data: Mapped[dict[str, Any]]


class Artifact(Base):
    __tablename__ = "artifacts"
    __table_args__ = (
        Index("ix_artifacts_owner_id", "owner", "id"),
        Index("ix_artifacts_owner_bytes", "owner", "bytes"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    owner: Mapped[str]
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"), index=True)
    kind: Mapped[str] = mapped_column(String(20))
    role: Mapped[str] = mapped_column(String(40))
    name: Mapped[str]
    format: Mapped[str] = mapped_column(String(20))
    bytes: Mapped[int]
    sha256: Mapped[str] = mapped_column(String(64))
    base: Mapped[str | None]
    layout: Mapped[str | None] = mapped_column(String(20))
    files: Mapped[list[Any]]
    """``[{path, bytes, sha256, store_key}]``."""
    facts: Mapped[dict[str, Any]]
    """What the contract calls ``metadata``: that name is taken on a mapped class."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime | None]


expires: ColumnElement[bool] = Artifact.expires_at.is_not(None)
_partial("ix_artifacts_expires_at", Artifact.expires_at, of=expires)


class Worker(Base):
    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    host: Mapped[str]
    """Host and home in one (core.workers.host): where its lock file can be tested."""
    pid: Mapped[int]
    device: Mapped[str]
    device_id: Mapped[str]
    role: Mapped[str] = mapped_column(String(20))
    ready: Mapped[bool] = mapped_column(Boolean, default=False)
    bases: Mapped[list[Any]]
    """Ids of the base models that its disk holds."""
    resident: Mapped[list[Any]] = mapped_column(default=list)
    """Ids of those that its runner holds in memory, and of artifacts whose UNets stand in for a
    base's own."""
    chip: Mapped[str | None]
    """What computes, by its maker's name; None until its runner has told."""
    memory_bytes: Mapped[int | None]
    """Of the chip; None where nobody can tell."""
    beat: Mapped[int] = mapped_column(default=0)
    beat_at: Mapped[datetime] = mapped_column(default=now)
    """To show. Whether it lives is told by the counter alone."""
    started_at: Mapped[datetime] = mapped_column(default=now)


class Device(Base):
    """A device over the lives of its workers: what it lost, and whether it may claim."""

    __tablename__ = "devices"

    id: Mapped[str] = mapped_column(primary_key=True)
    """Its worker's host and its name there."""
    state: Mapped[str] = mapped_column(String(20), default="open")
    reason: Mapped[str | None] = mapped_column(Text)
    """Why it is not open: a sentence."""
    lost: Mapped[list[Any]] = mapped_column(default=list)
    """Jobs that its runner died of since a job last ended well here: a list for each death, of all
    that may have been its cause."""


class Rate(Base):
    """How long an owner's last job of a sort took a step: what dry runs' seconds are made of."""

    __tablename__ = "rates"

    chip: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(primary_key=True)
    work: Mapped[str] = mapped_column(String(64), primary_key=True)
    """The hash of all that its time depends on, but for the number of steps."""
    kind: Mapped[str] = mapped_column(String(20))
    base: Mapped[str]
    cost: Mapped[float]
    """Of a step, in samples times pixels: works of one base compare by it."""
    seconds_per_step: Mapped[float]
    other_seconds: Mapped[float]
    """Of the job, beside its steps."""
    measured_at: Mapped[datetime] = mapped_column(default=now)
