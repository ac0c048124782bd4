"""What is taken away with time: files that no row names, old checkpoints, old jobs, artifacts that
have expired, what clients and webhooks were told long ago.

Rows go first, in a transaction, then files, and only then what says that they are to go. Whoever
dies in between leaves files that the next look finds again; two that look at once do the same work
twice.
"""

import logging
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime, timedelta

from sqlalchemy import and_, or_, select, update
from sqlalchemy.orm import Session

from core import crash, purge
from core.artifacts import deletions
from core.artifacts import removal as artifact_removal
from core.artifacts.store import Store
from core.config import Settings
from core.datasets import removal as dataset_removal
from core.db import migrate
from core.db.engine import Database
from core.db.models import Artifact, Job, now
from core.jobs import lanes, removal
from core.owners import idempotency
from core.periodic import Periodic
from core.webhooks import outbox

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
        self._revision = migrate.head()
        self._is_first = True

    def look(self) -> None:
        """One round."""
        with self.database.read() as session:
            migrate.require(session, self._revision)
        # a worker that lost its job may go on writing files for a lease, not longer
        self._sweep(before=now() - timedelta(seconds=2 * self.settings.lease_seconds))
        if self.settings.keep_checkpoints_days is not None:
            self._drop_checkpoints(now() - timedelta(days=self.settings.keep_checkpoints_days))
        if self.settings.keep_jobs_days is not None:
            self._forget_jobs(now() - timedelta(days=self.settings.keep_jobs_days))
        self._remove_expired(now())
        dataset_removal.sweep(self.database)
        deletions.carry_out(self.database, self.store)
        self._forget_requests()
        self._forget_deliveries()
        # at first wholly: a cache may hold what was there before anybody kept rolls
        purge.sweep_home(self.database, self.settings, wholly=self._is_first)
        self._is_first = False

    def _sweep(self, before: datetime) -> None:
        """Files that lost attempts left in the store."""
        for job_id in self._ended(before, swept=UNSWEPT):
            with self.database.read() as session:
                named = _named_keys(session, job_id)
            self._delete_but(job_id, named, then=SWEPT)

    def _drop_checkpoints(self, before: datetime) -> None:
        """Of jobs that nobody goes on from."""
        for job_id in self._ended(before, swept=SWEPT):
            with self.database.write() as session:
                job = session.get(Job, job_id, with_for_update=True)  # nobody follows it meanwhile
                if job is None or removal.is_needed(session, job_id):
                    continue
                job.checkpoints = []
                named = _named_keys(session, job_id)
            crash.point("retention: checkpoints dropped")
            self._delete_but(job_id, named, then=LIGHT)

    def _delete_but(self, job_id: str, named: Collection[str], *, then: int) -> None:
        self.store.delete_prefix(removal.folder_of(job_id), keep=named)
        crash.point("retention: swept")
        with self.database.write() as session:
            session.execute(update(Job).where(Job.id == job_id).values(swept=then))

    def _forget_jobs(self, before: datetime) -> None:
        """With all that they made, unless another job needs some of it."""
        for swept in (SWEPT, LIGHT):
            for job_id in self._ended(before, swept=swept):
                with self.database.write() as session:
                    removal.forget(session, job_id)
        crash.point("retention: jobs forgotten")
        with self.database.write() as session:
            lanes.forget_empty(session)

    def _remove_expired(self, at: datetime) -> None:
        """Artifacts, unless a job needs them."""
        page: Sequence[str] = [""]
        while page:
            with self.database.read() as session:
                page = artifact_removal.expired(session, at, after=page[-1], limit=_AT_ONCE)
            for artifact_id in page:
                with self.database.write() as session:
                    artifact_removal.remove_expired(session, artifact_id, at)

    def _forget_requests(self) -> None:
        """Keys under which clients might have sent something again."""
        with self.database.read() as session:
            any_old = idempotency.any_old(session)
        if any_old:
            with self.database.write() as session:
                idempotency.forget_old(session)

    def _forget_deliveries(self) -> None:
        """What webhooks were told, or could not be."""
        with self.database.read() as session:
            any_old = outbox.any_old(session)
        if any_old:
            with self.database.write() as session:
                outbox.forget_old(session)

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


def _named_keys(session: Session, job_id: str) -> frozenset[str]:
    """Of the files that rows name."""
    files = list(session.scalars(select(Artifact.files).where(Artifact.job_id == job_id)))
    checkpoints = session.scalar(select(Job.checkpoints).where(Job.id == job_id)) or []
    files += [checkpoint["files"] for checkpoint in checkpoints]
    return frozenset(file["store_key"] for each in files for file in each)
