"""What a client does with jobs: submit, look, cancel. All by owner."""

import json
from datetime import timedelta
from itertools import chain
from typing import Any

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from core.artifacts import service as artifacts
from core.config import Settings
from core.datasets import service as datasets
from core.db.models import Event, Job, JobInput, in_lane, is_running, now
from core.db.pages import newest_first
from core.errors import NotFound, Problem, Unprocessable, WrongState
from core.ids import new_id
from core.jobs import batches, forecast, lanes
from core.jobs.admission import Admitted, admit, parse, require_room
from core.jobs.ending import count_unfinished, end
from core.jobs.forecast import Forecast, require_fit
from core.jobs.progress import at_rest, progress_of
from core.jobs.states import TERMINAL, State, allowed_actions
from core.jobs.transition import move, record
from core.specs import MAX_STEPS, AnySpec, GenerateSpec
from core.webhooks import outbox
from core.webhooks import service as webhooks


def submit(
    session: Session,
    settings: Settings,
    *,
    owner: str,
    spec: AnySpec,
    name: str | None = None,
    priority: int = 0,
    labels: dict[str, str] | None = None,
    after: str | None = None,
    deadline_seconds: float | None = None,
    webhook: str | None = None,
    request_id: str | None = None,
) -> Job:
    """A queued job, after every check that needs no GPU. Ring the bell once this is committed.

    Args:
        after: a job that must have succeeded before this one is begun.
        deadline_seconds: from now; what was not begun by then is not begun at all.
        webhook: one of the owner's, that is told of the job's changes.
        request_id: of whoever asks, up to 64 characters; log lines about the job carry it.

    Raises:
        Unprocessable, Conflict, NotFound, TooMany: what it names is not there or does not fit.
    """
    require_room(session, owner, settings)
    if webhook is not None:
        webhooks.require(session, owner, webhook)
    admitted = admit(session, owner, spec)
    require_fit(forecast.fit_of(session, admitted), spec)
    inputs = {*admitted.inputs} | ({("job", after)} if after else set())
    waits = _count_parents(session, owner, inputs)
    _hold(session, inputs)
    job = Job(
        id=new_id("job"),
        owner=owner,
        kind=admitted.spec.kind,
        state=State.QUEUED,
        base=admitted.pipeline.parts.id,
        also_base=admitted.also_base,
        name=name,
        spec=admitted.spec.model_dump(mode="json"),
        labels=labels or {},
        priority=priority,
        after=after,
        **_batch_of(admitted),
        waits=waits,
        expires_at=now() + timedelta(seconds=deadline_seconds) if deadline_seconds else None,
        webhook=webhook,
        request_id=request_id,
        progress=progress_of(0, admitted.steps, message="waiting" if waits else "queued"),
        last_seq=1,
    )
    _enter(session, job, inputs)
    return job


def _enter(session: Session, job: Job, inputs: set[tuple[str, str]]) -> None:
    """Into the queue, with the first line of its story and the names of what it needs."""
    lanes.enter(session, job)
    session.add(job)
    session.flush()
    session.add(Event(job_id=job.id, seq=1, type="state", attempt=0, data={"state": State.QUEUED}))
    session.add_all(
        JobInput(job_id=job.id, kind=kind, input_id=input_id) for kind, input_id in inputs
    )
    outbox.ring(session, job)


def _batch_of(admitted: Admitted) -> dict[str, Any]:
    """Columns by which a drawing finds company."""
    spec = admitted.spec
    if not isinstance(spec, GenerateSpec):
        return {}
    return {
        "batch_key": batches.key_of(spec),
        "pictures": len(spec.prompts) * spec.images,
        "row_bytes": batches.row_bytes(spec, admitted.pipeline),
    }


def _count_parents(session: Session, owner: str, inputs: set[tuple[str, str]]) -> int:
    """Those that have not ended."""
    parents = {input_id for kind, input_id in inputs if kind == "job"}
    return count_unfinished(session, owner, parents) if parents else 0


def _hold(session: Session, inputs: set[tuple[str, str]]) -> None:
    """Against being deleted before this job is seen to need them."""
    for kind, hold in (("artifact", artifacts.hold), ("dataset", datasets.hold)):
        if ids := {input_id for of_kind, input_id in inputs if of_kind == kind}:
            hold(session, ids)


def rehearse(
    session: Session,
    settings: Settings,
    owner: str,
    spec: AnySpec,
    *,
    after: str | None = None,
    webhook: str | None = None,
) -> Forecast:
    """What the job would take, after all checks of ``submit``; nothing is queued or frozen.

    Raises:
        Unprocessable, Conflict, NotFound, TooMany: as ``submit``.
    """
    require_room(session, owner, settings)
    if webhook is not None:
        webhooks.require(session, owner, webhook)
    with session.begin_nested() as undone:
        admitted = admit(session, owner, spec)
        _count_parents(session, owner, {*admitted.inputs} | ({("job", after)} if after else set()))
        told = forecast.of(session, owner, admitted)
        undone.rollback()
    return told


def extend(
    session: Session,
    settings: Settings,
    owner: str,
    job_id: str,
    *,
    steps: int,
    request_id: str | None = None,
) -> Job:
    """A queued job that takes up a finished training's last checkpoint for ``steps`` more steps.

    Raises:
        WrongState: it is not a training that has succeeded, or left no checkpoint.
        Unprocessable: it would have taken more steps than a training may.
    """
    parent, state = lock(session, owner, job_id)
    if parent.kind == "generate" or state != State.SUCCEEDED or not parent.checkpoints:
        raise WrongState(
            f"'{job_id}' is a {parent.kind} job and is {state}: only a training that has "
            "succeeded, and whose checkpoint is still kept, can be extended.",
            allowed_actions=[
                each for each in allowed_actions(state, parent.kind) if each != "extend"
            ],
        )
    taken = parent.checkpoints[0]["step"]
    if taken + steps > MAX_STEPS:
        detail = (
            f"'{job_id}' has taken {taken:,} steps and {MAX_STEPS:,} in all are the most: "
            f"`steps` may be {MAX_STEPS - taken:,}."
        )
        raise Unprocessable(detail, errors=[Problem("/steps", "too_many_steps", detail)])
    spec = {**parent.spec, "steps": taken + steps, "epochs": None}
    return _follow(session, settings, parent, spec, request_id=request_id)


def retry(
    session: Session, settings: Settings, owner: str, job_id: str, *, request_id: str | None = None
) -> Job:
    """A queued job that does again what one did that ended without success; a training goes on
    from where that one was saved.

    Raises:
        WrongState: it has not ended, or has succeeded.
    """
    parent, state = lock(session, owner, job_id)
    allowed = allowed_actions(state, parent.kind)
    if "retry" not in allowed:
        raise WrongState(
            f"'{job_id}' is {state}: only what has failed, was cancelled or has expired can be "
            "tried again.",
            allowed_actions=allowed,
        )
    still_waits = parent.after if parent.started_at is None else None
    if still_waits and session.get(Job, still_waits) is None:
        still_waits = None  # deleted since: nothing is left to wait for
    return _follow(session, settings, parent, parent.spec, after=still_waits, request_id=request_id)


def _follow(
    session: Session,
    settings: Settings,
    parent: Job,
    spec: dict[str, Any],
    *,
    after: str | None = None,
    request_id: str | None,
) -> Job:
    """A job that goes on from ``parent``'s last checkpoint, if there is one."""
    webhook = parent.webhook
    if webhook is not None and not webhooks.is_there(session, parent.owner, webhook):
        webhook = None
    job = submit(
        session,
        settings,
        owner=parent.owner,
        spec=parse(parent.kind, spec),
        name=parent.name,
        priority=parent.priority,
        labels=parent.labels,
        after=after,
        webhook=webhook,
        request_id=request_id,
    )
    job.parent, job.rung = parent.id, parent.rung
    job.checkpoints = parent.checkpoints[:1]
    session.add_all(
        JobInput(job_id=job.id, kind="job", input_id=kept)
        for kept in {parent.id, *_makers(job.checkpoints)}
    )
    return job


def _makers(checkpoints: list[Any]) -> set[str]:
    """Jobs in whose folders of the store these lie: a parent may have had its own of its parent."""
    files = chain.from_iterable(checkpoint["files"] for checkpoint in checkpoints)
    return {file["store_key"].split("/")[1] for file in files}


_OWN = select(Job).where(Job.id == bindparam("job_id"), Job.owner == bindparam("owner"))
"""Put together once: that takes longer than to answer it, and nothing is asked so often."""


def get(session: Session, owner: str, job_id: str) -> Job:
    job = session.scalar(_OWN, {"job_id": job_id, "owner": owner})
    if job is None:
        raise _missing(job_id)
    return job


def _missing(job_id: str) -> NotFound:
    return NotFound(f"There is no job '{job_id}'.")


def list_page(
    session: Session,
    owner: str,
    *,
    kind: str | None = None,
    state: str | None = None,
    label: tuple[str, str] | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> tuple[list[Job], str | None]:
    """Newest first. The cursor is the last id of the page before; None: that was all."""
    query = select(Job).where(Job.owner == owner)
    if kind:
        query = query.where(Job.kind == kind)
    if state:
        query = query.where(Job.state == state)
    if label:
        name, value = label
        query = query.where(Job.labels[_spelt(session, name)].as_string() == value)
    return newest_first(session, query, Job.id, cursor=cursor, limit=limit)


def _spelt(session: Session, name: str) -> str:
    """SQLite looks for a key as the row spells it, where JSON escapes what is not ASCII."""
    is_sqlite = session.get_bind().dialect.name == "sqlite"
    return json.dumps(name)[1:-1] if is_sqlite else name


def waiting_of(session: Session, owner: str) -> list[Job]:
    """The owner's jobs that wait for a device, oldest first."""
    return list(session.scalars(select(Job).where(Job.owner == owner, in_lane).order_by(Job.id)))


def running_by_worker(session: Session) -> dict[str, Job]:
    """Every owner's."""
    return {str(job.worker_id): job for job in session.scalars(select(Job).where(is_running))}


def cancel(session: Session, owner: str, job_id: str) -> Job:
    """A waiting job ends at once; a running one is asked to, at its next step.

    Raises:
        WrongState: it ended otherwise already.
    """
    job, state = lock(session, owner, job_id)
    if state == State.CANCELLED or job.cancel_requested:
        return job
    _require_life(job, "cancel")
    if state == State.RUNNING:
        return _ask(session, job, "cancel requested", cancel_requested=True)
    return _changed(end(session, job_id=job_id, start=state, to=State.CANCELLED))


def pause(session: Session, owner: str, job_id: str) -> Job:
    """A waiting job leaves the queue at once; a running one is asked to, at its next step, and is
    saved before.

    Raises:
        WrongState: it has ended.
    """
    job, state = lock(session, owner, job_id)
    if state == State.PAUSED or job.pause_requested:
        return job
    _require_life(job, "pause")
    if state == State.RUNNING:
        return _ask(session, job, "pause requested", pause_requested=True)
    waiting = at_rest(job.progress, State.PAUSED)
    return _changed(move(session, job_id=job_id, start=state, to=State.PAUSED, progress=waiting))


def resume(session: Session, owner: str, job_id: str) -> Job:
    """A paused job is back in the queue; one that was about to pause does not.

    Raises:
        WrongState: it has ended.
    """
    job, state = lock(session, owner, job_id)
    _require_life(job, "resume")
    if state == State.RUNNING and job.pause_requested:
        return _ask(session, job, "pause withdrawn", pause_requested=False)
    if state != State.PAUSED:
        return job
    queued: dict[str, Any] = {
        "queued_at": now(),
        "not_before": None,
        "progress": at_rest(job.progress, "waiting" if job.waits else State.QUEUED),
    }
    return _changed(move(session, job_id=job_id, start=state, to=State.QUEUED, **queued))


def lock(session: Session, owner: str, job_id: str) -> tuple[Job, State]:
    """The job, as it stays until this transaction ends: or a claim in between spoils a change."""
    query = select(Job).where(Job.id == job_id, Job.owner == owner).with_for_update()
    job = session.scalar(query, execution_options={"populate_existing": True})
    if job is None:
        raise _missing(job_id)
    return job, State(job.state)


def _require_life(job: Job, action: str) -> None:
    if job.state in TERMINAL:
        raise WrongState(
            f"'{job.id}' has ended ({job.state}): there is nothing left to {action}.",
            allowed_actions=allowed_actions(State(job.state), job.kind),
        )


def _ask(session: Session, job: Job, message: str, **wish: bool) -> Job:
    """Of whoever runs the job."""
    running = Job.state == State.RUNNING
    return _changed(
        record(session, running, job_id=job.id, event=("log", {"message": message}), **wish)
    )


def _changed(job: Job | None) -> Job:
    assert job is not None, "the row is locked"
    return job
