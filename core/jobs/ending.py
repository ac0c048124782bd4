"""How a job ends, and what that means for the jobs that wait for it."""

from collections import deque
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import ColumnElement

from core.db.models import Job, JobInput, now
from core.errors import NotFound, Unprocessable
from core.jobs.progress import at_rest
from core.jobs.states import TERMINAL, State
from core.jobs.transition import move, record

PARENT_FAILED = "parent_failed"


def end(
    session: Session,
    *where: ColumnElement[bool],
    job_id: str,
    start: State,
    to: State,
    reason: str | None = None,
    **values: Any,
) -> Job | None:
    """As ``move``, into a state that nothing follows. In the same transaction, jobs that wait for
    this one may be begun if it succeeded, and fail if it did not, and those that wait for them."""
    job = move(
        session,
        *where,
        job_id=job_id,
        start=start,
        to=to,
        reason=reason,
        finished_at=now(),
        **values,
    )
    ended = deque([job] if job else [])
    while ended:
        parent = ended.popleft()
        for child in _waiting_for(session, parent):
            if parent.state == State.SUCCEEDED:
                _release(session, child, parent)
            else:
                ended.append(_fail(session, child, parent))
    return job


def count_unfinished(session: Session, owner: str, job_ids: set[str]) -> int:
    """How many of these jobs have not ended; none of them can end before this transaction does.

    Raises:
        NotFound: one is not there.
        Unprocessable: one has ended, but not well.
    """
    parents = session.scalars(
        select(Job)
        .where(Job.id.in_(job_ids), Job.owner == owner)
        .order_by(Job.id)
        .with_for_update(read=True),
        execution_options={"populate_existing": True},  # an earlier look is out of date
    ).all()
    missing = job_ids - {parent.id for parent in parents}
    if missing:
        raise NotFound(f"There is no job '{min(missing)}'.")
    for parent in parents:
        if parent.state in TERMINAL and parent.state != State.SUCCEEDED:
            raise Unprocessable(
                f"'{parent.id}' has {_how(parent)}, so nothing can come after it: retry it first "
                "and name the new job.",
                code=PARENT_FAILED,
            )
    return sum(parent.state not in TERMINAL for parent in parents)


def _waiting_for(session: Session, parent: Job) -> list[Job]:
    children = select(JobInput.job_id).where(JobInput.kind == "job", JobInput.input_id == parent.id)
    return list(
        session.scalars(
            select(Job)
            .where(Job.id.in_(children), Job.waits > 0, Job.state.not_in(TERMINAL))
            .order_by(Job.id)  # or two parents that end at once may wait for each other
            .with_for_update(),
            execution_options={"populate_existing": True},
        )
    )


def _release(session: Session, child: Job, parent: Job) -> None:
    """It waits for one job less."""
    at_last = child.waits == 1
    state = State(child.state)
    record(
        session,
        job_id=child.id,
        event=("log", {"message": f"{parent.id} has succeeded"}),
        waits=child.waits - 1,
        queued_at=now(),
        progress=at_rest(child.progress, state) if at_last else child.progress,
    )


def _fail(session: Session, child: Job, parent: Job) -> Job:
    detail = f"It was to come after '{parent.id}', which has {_how(parent)}."
    failed = move(
        session,
        job_id=child.id,
        start=State(child.state),
        to=State.FAILED,
        reason=PARENT_FAILED,
        finished_at=now(),
        waits=0,
        error={"code": PARENT_FAILED, "detail": detail},
    )
    assert failed is not None, "the row is locked"
    return failed


def _how(job: Job) -> str:
    return f"failed ({job.error['code']})" if job.error and job.state == State.FAILED else job.state
