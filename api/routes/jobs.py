"""Jobs: everything that takes a GPU is one."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from sqlalchemy.orm import Session

from api import pages
from api.deps import (
    BellDep,
    CursorDep,
    DatabaseDep,
    Limit,
    ReaderDep,
    SettingsDep,
    StandingDep,
    WriterDep,
)
from api.errors import invalid
from api.schemas import (
    ArtifactRead,
    EventRead,
    EventsRead,
    Extension,
    ForecastRead,
    JobCreate,
    JobRead,
    LogsRead,
    MetricsRead,
    Page,
)
from core.artifacts import service as artifacts
from core.db.models import Job
from core.errors import InsufficientScope, NotAcceptable, Problem, Unprocessable
from core.jobs import logs, metrics
from core.jobs import service as jobs
from core.jobs.admission import parse
from core.jobs.standing import Standing
from core.jobs.states import State
from core.jobs.transition import events_after

MAX_SEQ = 2**63 - 1
"""What either database can count to."""

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.post(
    "",
    status_code=201,
    response_model=JobRead,
    responses={200: {"model": ForecastRead, "description": "A dry run."}},
)
def submit_job(
    body: JobCreate,
    caller: WriterDep,
    settings: SettingsDep,
    database: DatabaseDep,
    bell: BellDep,
    standing: StandingDep,
    response: Response,
    dry_run: Annotated[
        bool, Query(description="All checks, and what it would take; nothing is queued.")
    ] = False,
) -> JobRead | JSONResponse:
    """Queues a job once every check that needs no GPU has passed."""
    if body.priority > 0 and "admin" not in caller.scopes:
        raise InsufficientScope(f"`priority` is {body.priority}: above 0 it takes an admin key.")
    try:
        spec = parse(body.kind, body.spec)  # before the database is held
    except ValidationError as error:
        raise invalid(error, body.spec, under="/spec") from error
    with database.write() as session:
        if dry_run:
            told = ForecastRead.of(jobs.rehearse(session, settings, caller.owner, spec))
            return JSONResponse(told.model_dump(mode="json"))
        job = jobs.submit(
            session,
            settings,
            owner=caller.owner,
            spec=spec,
            name=body.name,
            priority=body.priority,
            labels=body.labels,
            after=body.after,
            deadline_seconds=body.deadline_seconds,
        )
        read = _read(session, standing, job)
    bell.ring()
    response.headers["Location"] = f"{router.prefix}/{job.id}"
    return read


@router.get("")
def list_jobs(
    caller: ReaderDep,
    database: DatabaseDep,
    standing: StandingDep,
    cursor: CursorDep,
    limit: Limit = pages.LIMIT,
    kind: str | None = None,
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


@router.get("/{job_id}")
def read_job(
    job_id: str, caller: ReaderDep, database: DatabaseDep, standing: StandingDep
) -> JobRead:
    with database.read() as session:
        return _read(session, standing, jobs.get(session, caller.owner, job_id))


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
    response: Response,
) -> JobRead:
    """A new job that goes on where a finished training ended. Under a constant schedule it ends as
    one run of all the steps would have."""
    with database.write() as session:
        job = jobs.extend(session, settings, caller.owner, job_id, steps=body.steps)
        read = _read(session, standing, job)
    bell.ring()
    response.headers["Location"] = f"{router.prefix}/{job.id}"
    return read


@router.post("/{job_id}/retry", status_code=201)
def retry_job(
    job_id: str,
    caller: WriterDep,
    settings: SettingsDep,
    database: DatabaseDep,
    bell: BellDep,
    standing: StandingDep,
    response: Response,
) -> JobRead:
    """A new job in place of one that has failed, was cancelled or has expired. A training goes on
    from where that one was saved."""
    with database.write() as session:
        job = jobs.retry(session, settings, caller.owner, job_id)
        read = _read(session, standing, job)
    bell.ring()
    response.headers["Location"] = f"{router.prefix}/{job.id}"
    return read


@router.get("/{job_id}/events")
def list_events(
    job_id: str,
    caller: ReaderDep,
    database: DatabaseDep,
    after: Annotated[int, Query(ge=0, le=MAX_SEQ, description="The last `seq` you have seen.")] = 0,
    limit: Limit = pages.LIMIT,
    accept: Annotated[str, Header(include_in_schema=False)] = "*/*",
) -> EventsRead:
    """What happened to a job, oldest first."""
    if accept.partition(";")[0].strip() == "text/event-stream":
        raise NotAcceptable("Events come as application/json here: ask for that.")
    with database.read() as session:
        jobs.get(session, caller.owner, job_id)
        events = events_after(session, job_id, after, limit)
    return EventsRead(
        items=[EventRead.of(event) for event in events],
        next_after=events[-1].seq if events else after,
    )


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
        made, next_cursor = artifacts.list_made_by(session, job.id, cursor=cursor, limit=limit)
        return Page(
            items=[ArtifactRead.of(artifact) for artifact in made],
            next_cursor=pages.encoded(next_cursor),
        )


def _read(session: Session, standing: Standing, job: Job) -> JobRead:
    return JobRead.of(job, standing.positions(session, [job]).get(job.id))


def _label(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    name, colon, value = text.partition(":")
    if not name or not colon:
        detail = f"`label` is {text!r}: write it as name:value."
        raise Unprocessable(detail, errors=[Problem("/label", "bad_label", detail)])
    return name, value
