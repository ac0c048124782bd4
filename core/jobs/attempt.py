"""One claim on one job: the right to write about it until somebody else claims it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import ColumnElement

from core.db.models import Job, now
from core.jobs.ending import end
from core.jobs.progress import at_rest
from core.jobs.states import State
from core.jobs.transition import EventType, move, record

MAX_ATTEMPTS = 20
"""In vain, whatever the reasons were: a job that got no further so often is not going to end."""


class LeaseLost(Exception):
    """Another attempt has the job, or it ended. Stop at once and write no more."""


@dataclass(frozen=True)
class Attempt:
    """The fence. Every write names job and attempt, and is refused when either has moved on."""

    job_id: str
    number: int

    @property
    def _fence(self) -> ColumnElement[bool]:
        return Job.attempt == self.number

    def tell(
        self, session: Session, event: EventType, data: Mapping[str, Any], **values: Any
    ) -> Job:
        """One event, and ``values`` of the row. The answer carries what was asked meanwhile."""
        return _kept(
            record(
                session,
                Job.state == State.RUNNING,
                self._fence,
                job_id=self.job_id,
                event=(event, dict(data)),
                **values,
            )
        )

    def progress(self, session: Session, progress: Mapping[str, Any]) -> Job:
        return self.tell(session, "progress", progress, progress=dict(progress))

    def succeed(self, session: Session, result: Mapping[str, Any]) -> Job:
        return self._end(session, State.SUCCEEDED, result=dict(result))

    def fail(self, session: Session, code: str, detail: str) -> Job:
        error = {"code": code, "detail": detail}
        return self._end(session, State.FAILED, reason=code, error=error)

    def cancel(self, session: Session) -> Job:
        return self._end(session, State.CANCELLED)

    def give_back(
        self,
        session: Session,
        reason: str,
        *where: ColumnElement[bool],
        pause_seconds: float = 0.0,
        in_vain: bool = True,
        **values: Any,
    ) -> Job | None:
        """Back to the queue for another attempt, with ``values`` of the row; None: the lease was
        lost already.

        It ends instead when somebody asked to cancel it meanwhile, or after too many attempts
        ``in_vain``; and it waits, out of the queue, when somebody asked to pause it.
        """
        job = self._locked(session)  # no cancel slips in between
        if job is None:
            return None
        leave = partial(
            self._leave, session, *where, reason=reason, device_seconds=_device_seconds(job)
        )
        if job.cancel_requested:
            return leave(by=end, to=State.CANCELLED)
        values |= {"worker_id": None, "device": None}
        if job.pause_requested or not in_vain:
            values["pauses"] = Job.pauses + 1
        if job.pause_requested:
            progress = at_rest(job.progress, State.PAUSED)
            return leave(to=State.PAUSED, progress=progress, pause_requested=False, **values)
        if in_vain and self.number - job.pauses >= MAX_ATTEMPTS:
            detail = f"It was begun {self.number} times and never came to an end ({reason})."
            return leave(by=end, to=State.FAILED, error={"code": "worker_lost", "detail": detail})
        return leave(
            to=State.QUEUED,
            queued_at=now(),
            not_before=now() + timedelta(seconds=pause_seconds) if pause_seconds else None,
            progress=at_rest(job.progress, State.QUEUED),
            **values,
        )

    def _end(self, session: Session, to: State, **values: Any) -> Job:
        job = _kept(self._locked(session))
        seconds = _device_seconds(job)
        return _kept(self._leave(session, by=end, to=to, device_seconds=seconds, **values))

    def _leave(
        self,
        session: Session,
        *where: ColumnElement[bool],
        by: Callable[..., Job | None] = move,
        **values: Any,
    ) -> Job | None:
        """Out of ``running``."""
        fence = (self._fence, *where)
        return by(session, *fence, job_id=self.job_id, start=State.RUNNING, **values)

    def _locked(self, session: Session) -> Job | None:
        return session.get(Job, self.job_id, with_for_update=True, populate_existing=True)


def _device_seconds(job: Job) -> float:
    """With those of the attempt that ends now."""
    attempt = now() - job.claimed_at if job.claimed_at else timedelta()
    return job.device_seconds + round(max(0.0, attempt.total_seconds() * job.device_share), 3)


def _kept(job: Job | None) -> Job:
    if job is None:
        raise LeaseLost
    return job
