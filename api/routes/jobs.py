"""Jobs: everything that takes a GPU is one."""

from contextlib import suppress
from functools import partial
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from sqlalchemy.orm import Session

from api import pages, preferences, stream
from api.deps import (
    BellDep,
    CursorDep,
    DatabaseDep,
    FeedDep,
    Limit,
    ReaderDep,
    RequestIdDep,
    SettingsDep,
    StandingDep,
    StoreDep,
    WriterDep,
)
from api.errors import invalid
from api.events import Until
from api.keyed import KeyedDocumentDep, made
from api.schemas.artifacts import ArtifactRead
from api.schemas.common import LABEL_FILTER, Page
from api.schemas.jobs import (
    EventRead,
    EventsRead,
    Extension,
    ForecastRead,
    JobCreate,
    JobRead,
    LogsRead,
    MetricsRead,
)
from api.sight import Sight
from core import crash, purge
from core.artifacts import service as artifacts
from core.config import Settings
from core.db.engine import Database
from core.db.models import Job
from core.errors import InsufficientScope, Problem, Unavailable, Unprocessable
from core.jobs import logs, metrics, removal
from core.jobs import service as jobs
from core.jobs.admission import parse
from core.jobs.bell import Bell
from core.jobs.standing import Standing
from core.jobs.states import State
from core.jobs.transition import events_after
from core.owners.idempotency import Request as KeyedRequest
from core.owners.idempotency import once
from core.owners.service import Caller
from core.specs import AnySpec, Kind

MAX_SEQ = 2**63 - 1
"""What either database can count to."""

_KNOWN: dict[int | str, dict[str, Any]] = {304: {"description": "As `If-None-Match` has it."}}
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A page; with `Accept: text/event-stream` all from here to the job's end: "
        "`id` is `seq`, `event` is `type`, `data` is what `items` would hold.",
        "content": {stream.MEDIA_TYPE: {"schema": {"type": "string"}}},
    }
}

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.post(
    "",
    status_code=201,
    response_model=JobRead,
    responses={200: {"model": ForecastRead, "description": "A dry run."}},
)
async def submit_job(
    request: Request,
    body: JobCreate,
    caller: WriterDep,
    settings: SettingsDep,
    database: DatabaseDep,
    bell: BellDep,
    standing: StandingDep,
    feed: FeedDep,
    keyed: KeyedDocumentDep,
    request_id: RequestIdDep,
    dry_run: Annotated[
        bool, Query(description="All checks, and what it would take; nothing is queued.")
    ] = False,
    prefer: Annotated[
        list[str],
        Header(description="`wait=N`: answers once the job has ended, or after N seconds, <= 30."),
    ] = [],  # noqa: B006  FastAPI's way to say that a header may come several times
) -> Response:
    """Queues a job once every check that needs no GPU has passed."""
    _require_right_to(body.priority, caller)
    if dry_run:
        told = await to_thread.run_sync(_rehearse, database, settings, caller, body)
        return JSONResponse(told.model_dump(mode="json"))
    submit = partial(_submit, database, settings, bell, standing, caller, body, keyed, request_id)
    sight, replayed = await to_thread.run_sync(submit)
    headers = made(_path(sight.job_id), replayed)
    seconds = preferences.wait_seconds(prefer)
    if seconds:
        headers["Preference-Applied"] = f"wait={seconds}"
        with suppress(Unavailable):  # it is queued, whatever else is not to be had
            look = partial(_look, database, standing, caller, sight.job_id)
            ended = await feed.hold(request, caller, sight, Until.ENDED, seconds)
            sight = ended if ended else await to_thread.run_sync(look)
    return sight.answer(status=201, **headers)


@router.get("")
def list_jobs(
    caller: ReaderDep,
    database: DatabaseDep,
    standing: StandingDep,
    cursor: CursorDep,
    limit: Limit = pages.LIMIT,
    kind: Kind | None = None,
    state: State | None = None,
    label: Annotated[str | None, Query(description="`name:value`.")] = None,
) -> Page[JobRead]:
    """Newest first."""
    with database.read() as session:
        found, next_cursor = jobs.list_page(
            session,
            caller.owner,
            kind=kind,
            state=state,
            label=_label(label),
            cursor=cursor,
            limit=limit,
        )
        positions = standing.positions(session, found)
        return Page(items=JobRead.of_many(found, positions), next_cursor=pages.encoded(next_cursor))


@router.get("/{job_id}", response_model=JobRead, responses=_KNOWN)
async def read_job(
    request: Request,
    job_id: str,
    caller: ReaderDep,
    database: DatabaseDep,
    standing: StandingDep,
    feed: FeedDep,
    wait: Annotated[
        float | None,
        Query(
            ge=0,
            le=preferences.MAX_WAIT_SECONDS,
            description="Seconds to hold the answer: with `If-None-Match` of the last ETag until "
            "something has happened to the job, without it until the job has ended.",
        ),
    ] = None,
    if_none_match: Annotated[str | None, Header(description="The ETag that you have.")] = None,
) -> Response:
    """The job, with an ETag that names all that has happened to it: `queue_position` and `usage`
    move without it."""
    look = partial(_look, database, standing, caller, job_id)
    sight = await to_thread.run_sync(look)
    if not wait or sight.has_ended:
        pass  # nothing will happen to it any more
    elif sight.is_known(if_none_match):
        moved = await feed.hold(request, caller, sight, Until.MOVED, wait)
        sight = moved or sight
    elif if_none_match is None:
        ended = await feed.hold(request, caller, sight, Until.ENDED, wait)
        sight = ended if ended else await to_thread.run_sync(look)
    return sight.answer(if_none_match)


@router.delete("/{job_id}", status_code=204)
def delete_job(
    job_id: str,
    caller: WriterDep,
    settings: SettingsDep,
    database: DatabaseDep,
    store: StoreDep,
) -> None:
    """Once it has ended: with its artifacts, checkpoints, events and logs, unless a job that has
    not ended needs some of it."""
    with database.write() as session:
        removal.remove(session, settings, caller.owner, job_id)
    purge.finish(database, store, settings)


@router.post("/{job_id}/cancel", status_code=202)
def cancel_job(job_id: str, caller: WriterDep, database: DatabaseDep) -> JobRead:
    """At once while it waits, at its next step while it runs. Repeating is harmless."""
    with database.write() as session:
        return JobRead.of(jobs.cancel(session, caller.owner, job_id), None)


@router.post("/{job_id}/pause", status_code=202)
def pause_job(job_id: str, caller: WriterDep, database: DatabaseDep) -> JobRead:
    """Out of the queue at once while it waits; after its present step while it runs: a training is
    saved, a drawing begins again. Repeating is harmless."""
    with database.write() as session:
        return JobRead.of(jobs.pause(session, caller.owner, job_id), None)


@router.post("/{job_id}/resume", status_code=202)
def resume_job(
    job_id: str, caller: WriterDep, database: DatabaseDep, bell: BellDep, standing: StandingDep
) -> JobRead:
    """Back into the queue, to go on from where it was saved. Repeating is harmless."""
    with database.write() as session:
        read = _read(session, standing, jobs.resume(session, caller.owner, job_id))
    bell.ring()
    return read


@router.post("/{job_id}/extend", status_code=201)
def extend_job(
    job_id: str,
    body: Extension,
    caller: WriterDep,
    settings: SettingsDep,
    database: DatabaseDep,
    bell: BellDep,
    standing: StandingDep,
    keyed: KeyedDocumentDep,
    request_id: RequestIdDep,
    response: Response,
) -> JobRead:
    """A new job that goes on where a finished training ended. Under a constant schedule it ends as
    one run of all the steps would have."""
    with database.write() as session:
        extend = partial(
            jobs.extend,
            session,
            settings,
            caller.owner,
            job_id,
            steps=body.steps,
            request_id=request_id,
        )
        job, replayed = once(session, keyed, extend, partial(jobs.get, session, caller.owner))
        _require_right_to(job.priority, caller)
        read = _read(session, standing, job)
    bell.ring()
    response.headers.update(made(_path(job.id), replayed))
    return read


@router.post("/{job_id}/retry", status_code=201)
def retry_job(
    job_id: str,
    caller: WriterDep,
    settings: SettingsDep,
    database: DatabaseDep,
    bell: BellDep,
    standing: StandingDep,
    keyed: KeyedDocumentDep,
    request_id: RequestIdDep,
    response: Response,
) -> JobRead:
    """A new job in place of one that has failed, was cancelled or has expired. A training goes on
    from where that one was saved."""
    with database.write() as session:
        retry = partial(jobs.retry, session, settings, caller.owner, job_id, request_id=request_id)
        job, replayed = once(session, keyed, retry, partial(jobs.get, session, caller.owner))
        _require_right_to(job.priority, caller)
        read = _read(session, standing, job)
    bell.ring()
    response.headers.update(made(_path(job.id), replayed))
    return read


@router.get("/{job_id}/events", response_model=EventsRead, responses=_STREAM)
async def list_events(
    job_id: str,
    caller: ReaderDep,
    database: DatabaseDep,
    feed: FeedDep,
    after: Annotated[int, Query(ge=0, le=MAX_SEQ, description="The last `seq` you have seen.")] = 0,
    limit: Limit = pages.LIMIT,
    last_event_id: Annotated[
        int | None,
        Header(ge=0, le=MAX_SEQ, description="Of a stream that goes on; counts before `after`."),
    ] = None,
    accept: Annotated[str, Header(include_in_schema=False)] = "*/*",
) -> Response:
    """What happened to a job, oldest first."""
    if stream.is_wanted(accept):
        history = stream.History(database, caller, job_id)
        seen = after if last_event_id is None else last_event_id
        first = await to_thread.run_sync(history.page, seen)
        return stream.EventStream(feed, history, first, seen)
    page = await to_thread.run_sync(_events_page, database, caller, job_id, after, limit)
    return Response(page.model_dump_json(), media_type="application/json")


@router.get("/{job_id}/metrics")
def read_metrics(job_id: str, caller: ReaderDep, database: DatabaseDep) -> MetricsRead:
    """A training's losses and their parts, step by step."""
    with database.read() as session:
        jobs.get(session, caller.owner, job_id)
        return MetricsRead(**vars(metrics.of(session, job_id)))


@router.get("/{job_id}/logs")
def read_logs(
    job_id: str,
    caller: ReaderDep,
    database: DatabaseDep,
    tail: Annotated[int, Query(ge=1, le=500, description="So many of the last lines.")] = 100,
) -> LogsRead:
    """What its runner wrote last, without paths or secrets."""
    with database.read() as session:
        jobs.get(session, caller.owner, job_id)
        return LogsRead(lines=logs.tail(session, job_id, tail))


@router.get("/{job_id}/artifacts")
def list_job_artifacts(
    job_id: str,
    caller: ReaderDep,
    database: DatabaseDep,
    cursor: CursorDep,
    limit: Limit = pages.LIMIT,
) -> Page[ArtifactRead]:
    """What it made so far, in order of making."""
    with database.read() as session:
        job = jobs.get(session, caller.owner, job_id)
        its_own, next_cursor = artifacts.list_made_by(session, job.id, cursor=cursor, limit=limit)
        return Page(
            items=[ArtifactRead.of(artifact) for artifact in its_own],
            next_cursor=pages.encoded(next_cursor),
        )


def _submit(
    database: Database,
    settings: Settings,
    bell: Bell,
    standing: Standing,
    caller: Caller,
    body: JobCreate,
    keyed: KeyedRequest | None,
    request_id: str,
) -> tuple[Sight, bool]:
    """The job, and whether the same request had made it before."""
    spec = _parsed(body)  # before the database is held
    with database.write() as session:
        submit = partial(
            jobs.submit,
            session,
            settings,
            owner=caller.owner,
            spec=spec,
            name=body.name,
            priority=body.priority,
            labels=body.labels,
            after=body.after,
            deadline_seconds=body.deadline_seconds,
            webhook=body.webhook,
            request_id=request_id,
        )
        job, replayed = once(session, keyed, submit, partial(jobs.get, session, caller.owner))
        sight = Sight.of(session, standing, job)
        crash.point("inside a submit")
    crash.point("after a submit")
    bell.ring()
    return sight, replayed


def _require_right_to(priority: int, caller: Caller) -> None:
    if priority > 0 and "admin" not in caller.scopes:
        raise InsufficientScope(f"`priority` is {priority}: above 0 it takes an admin key.")


def _path(job_id: str) -> str:
    return f"{router.prefix}/{job_id}"


def _rehearse(
    database: Database, settings: Settings, caller: Caller, body: JobCreate
) -> ForecastRead:
    spec = _parsed(body)
    with database.write() as session:
        told = jobs.rehearse(
            session, settings, caller.owner, spec, after=body.after, webhook=body.webhook
        )
        return ForecastRead.of(told)


def _parsed(body: JobCreate) -> AnySpec:
    try:
        return parse(body.kind, body.spec)
    except ValidationError as error:
        raise invalid(error, body.spec, under="/spec") from error


def _look(database: Database, standing: Standing, caller: Caller, job_id: str) -> Sight:
    with database.read() as session:
        return Sight.of(session, standing, jobs.get(session, caller.owner, job_id))


def _events_page(
    database: Database, caller: Caller, job_id: str, after: int, limit: int
) -> EventsRead:
    with database.read() as session:
        jobs.get(session, caller.owner, job_id)
        events = events_after(session, job_id, after, limit)
    return EventsRead(
        items=[EventRead.of(event) for event in events],
        next_after=events[-1].seq if events else after,
    )


def _read(session: Session, standing: Standing, job: Job) -> JobRead:
    return JobRead.of(job, standing.positions(session, [job]).get(job.id))


def _label(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    name, _, value = text.partition(":")
    if not LABEL_FILTER.fullmatch(text):
        detail = (
            f"`label` is {text!r}: write it as name:value, the name of letters, digits, '.', '_', "
            "'-' and '/'."
        )
        raise Unprocessable(detail, errors=[Problem("/label", "bad_label", detail)])
    return name, value
