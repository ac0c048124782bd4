"""One claim on one job: the right to write about it until somebody else claims it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import ColumnElement

from core.db.models import Job, now
from core.jobs.progress import at_rest
from core.jobs.states import State
from core.jobs.transition import EventType, move, record

MAX_ATTEMPTS = 20
"""Whatever the reasons were, but for pauses: a job that was begun so often is not going to end."""


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

    def succeed(self, session: Session, result: Mapping[str, Any], device_seconds: float) -> Job:
        return self._end(session, State.SUCCEEDED, device_seconds, result=dict(result))

    def fail(self, session: Session, code: str, detail: str, device_seconds: float) -> Job:
        error = {"code": code, "detail": detail}
        return self._end(session, State.FAILED, device_seconds, reason=code, error=error)

    def cancel(self, session: Session, device_seconds: float) -> Job:
        return self._end(session, State.CANCELLED, device_seconds)

    def _end(
        self,
        session: Session,
        to: State,
        device_seconds: float,
        *,
        reason: str | None = None,
        **values: Any,
    ) -> Job:
        return _kept(
            move(
                session,
                self._fence,
                job_id=self.job_id,
                start=State.RUNNING,
                to=to,
                reason=reason,
                finished_at=now(),
                device_seconds=Job.device_seconds + device_seconds,
                **values,
            )
        )

    def give_back(
        self,
        session: Session,
        reason: str,
        *where: ColumnElement[bool],
        device_seconds: float = 0.0,
        pause_seconds: float = 0.0,
        losses: int = 0,
        rung: int | None = None,
    ) -> Job | None:
        """Back to the queue for another attempt, on another ``rung`` if one is given; None: the
        lease was lost already.

        It ends instead when somebody asked to cancel it meanwhile, or after too many attempts; and
        it waits, out of the queue, when somebody asked to pause it.
        """
        job = session.get(Job, self.job_id, with_for_update=True)  # no cancel slips in between
        if job is None:
            return None
        leave = partial(
            move,
            session,
            self._fence,
            *where,
            job_id=self.job_id,
            start=State.RUNNING,
            reason=reason,
            device_seconds=Job.device_seconds + device_seconds,
        )
        cancelled = leave(Job.cancel_requested.is_(True), to=State.CANCELLED, finished_at=now())
        if cancelled:
            return cancelled
        back: dict[str, Any] = {
            "worker_id": None,
            "device": None,
            "losses": Job.losses + losses,
            "rung": Job.rung if rung is None else rung,
        }
        paused = leave(
            Job.pause_requested.is_(True),
            to=State.PAUSED,
            pause_requested=False,
            pauses=Job.pauses + 1,
            progress=at_rest(job.progress, State.PAUSED),
            **back,
        )
        if paused:
            return paused
        if self.number - job.pauses >= MAX_ATTEMPTS:
            detail = f"It was begun {self.number} times and never came to an end ({reason})."
            error = {"code": "worker_lost", "detail": detail}
            return leave(to=State.FAILED, error=error, finished_at=now())
        return leave(
            to=State.QUEUED,
            queued_at=now(),
            not_before=now() + timedelta(seconds=pause_seconds) if pause_seconds else None,
            progress=at_rest(job.progress, State.QUEUED),
            **back,
        )


def _kept(job: Job | None) -> Job:
    if job is None:
        raise LeaseLost
    return job
