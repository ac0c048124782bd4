"""What is taken away with time: files that no row names, old checkpoints, old jobs.

Rows go first, in a transaction, then files. Whoever dies in between leaves files that the next
look finds again; two that look at once do the same work twice.
"""

import logging
from collections.abc import Iterator
from datetime import datetime, timedelta

from sqlalchemy import and_, delete, or_, select, update
from sqlalchemy.orm import Session

from core.artifacts.store import Store
from core.config import Settings
from core.db.engine import Database
from core.db.models import Artifact, Event, Job, JobInput, JobLog, now
from core.jobs import lanes
from core.jobs.states import TERMINAL
from core.owners import idempotency
from core.periodic import Periodic

log = logging.getLogger(__name__)

LOOK_SECONDS = 60.0
_AT_ONCE = 50
"""Jobs read at once."""

UNSWEPT, SWEPT, LIGHT = 0, 1, 2
"""Of ``jobs.swept``: files of lost attempts may lie about; none do; nor are there checkpoints."""


class Retention(Periodic):
    """Looks now and then, in a thread. Any number may run."""

    def __init__(self, database: Database, store: Store, settings: Settings) -> None:
        super().__init__("retention", LOOK_SECONDS, self.look)
        self.database = database
        self.store = store
        self.settings = settings

    def look(self) -> None:
        """One round."""
        # a worker that lost its job may go on writing files for a lease, not longer
        self._sweep(before=now() - timedelta(seconds=2 * self.settings.lease_seconds))
        if self.settings.keep_checkpoints_days is not None:
            self._drop_checkpoints(now() - timedelta(days=self.settings.keep_checkpoints_days))
        if self.settings.keep_jobs_days is not None:
            self._forget_jobs(now() - timedelta(days=self.settings.keep_jobs_days))
        self._forget_requests()

    def _sweep(self, before: datetime) -> None:
        """Files that lost attempts left in the store."""
        for job_id in self._ended(before, swept=UNSWEPT):
            with self.database.read() as session:
                named = _named_keys(session, job_id)
            self.store.delete_prefix(folder_of(job_id), keep=named)
            with self.database.write() as session:
                session.execute(update(Job).where(Job.id == job_id).values(swept=SWEPT))

    def _drop_checkpoints(self, before: datetime) -> None:
        """Of jobs that nobody goes on from."""
        for job_id in self._ended(before, swept=SWEPT):
            with self.database.write() as session:
                job = session.get(Job, job_id, with_for_update=True)  # nobody follows it meanwhile
                if job is None or _is_needed(session, job_id):
                    continue
                job.checkpoints, job.swept = [], LIGHT
                named = _named_keys(session, job_id)
            self.store.delete_prefix(folder_of(job_id), keep=named)

    def _forget_jobs(self, before: datetime) -> None:
        """With all that they made, unless another job needs some of it."""
        for swept in (SWEPT, LIGHT):
            for job_id in self._ended(before, swept=swept):
                with self.database.write() as session:
                    forgotten = forget(session, job_id)
                if forgotten:
                    self.store.delete_prefix(folder_of(job_id))
        with self.database.write() as session:
            lanes.forget_empty(session)

    def _forget_requests(self) -> None:
        """Keys under which clients might have sent something again."""
        with self.database.read() as session:
            any_old = idempotency.any_old(session)
        if any_old:
            with self.database.write() as session:
                idempotency.forget_old(session)

    def _ended(self, before: datetime, *, swept: int) -> Iterator[str]:
        """The oldest first. In pages that begin after the last one, whatever became of those."""
        ended = select(Job.finished_at, Job.id).where(Job.swept == swept, Job.finished_at < before)
        ended = ended.order_by(Job.finished_at, Job.id).limit(_AT_ONCE)
        query = ended
        while True:
            with self.database.read() as session:
                page = session.execute(query).all()
            yield from (job_id for _, job_id in page)
            if len(page) < _AT_ONCE:
                return
            at, last_id = page[-1]
            later = or_(Job.finished_at > at, and_(Job.finished_at == at, Job.id > last_id))
            query = ended.where(later)


def folder_of(job_id: str) -> str:
    """Where the store keeps all that a job made."""
    return f"jobs/{job_id}/"


def forget(session: Session, job_id: str) -> bool:
    """Takes away an ended job's rows; False where another job needs one. Delete its folder in the
    store once this is committed."""
    job = session.get(Job, job_id, with_for_update=True)
    if job is None or job.state not in TERMINAL or _is_needed(session, job_id):
        return False
    for table in (Artifact, Event, JobInput, JobLog):
        session.execute(delete(table).where(table.job_id == job_id))
    session.delete(job)
    return True


def _is_needed(session: Session, job_id: str) -> bool:
    """Whether a job that has not ended reads this one or what it made, or one that has may yet be
    taken up again from a checkpoint of this one's."""
    return _is_read(session, job_id) or _lends_a_checkpoint(session, job_id)


def _lends_a_checkpoint(session: Session, job_id: str) -> bool:
    """To a job that followed this one, and saved nothing of its own before it ended."""
    followers = select(Job.checkpoints).join(JobInput, JobInput.job_id == Job.id)
    followers = followers.where(JobInput.kind == "job", JobInput.input_id == job_id)
    return any(
        file["store_key"].startswith(folder_of(job_id))
        for checkpoints in session.scalars(followers)
        for checkpoint in checkpoints
        for file in checkpoint["files"]
    )


def _is_read(session: Session, job_id: str) -> bool:
    made = select(Artifact.id).where(Artifact.job_id == job_id)
    needing = (
        select(JobInput.job_id)
        .join(Job, Job.id == JobInput.job_id)
        .where(
            Job.state.not_in(TERMINAL),
            ((JobInput.kind == "job") & (JobInput.input_id == job_id))
            | ((JobInput.kind == "artifact") & JobInput.input_id.in_(made)),
        )
    )
    return session.execute(needing.limit(1)).first() is not None


def _named_keys(session: Session, job_id: str) -> frozenset[str]:
    """Of the files that rows name."""
    files = list(session.scalars(select(Artifact.files).where(Artifact.job_id == job_id)))
    checkpoints = session.scalar(select(Job.checkpoints).where(Job.id == job_id)) or []
    files += [checkpoint["files"] for checkpoint in checkpoints]
    return frozenset(file["store_key"] for each in files for file in each)
