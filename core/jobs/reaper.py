"""Finds workers that died and gives their jobs back to the queue; ends what has expired there.

Two signs of death, and neither is a clock on the wall. On this host, a worker's lock file that
nobody holds: dead for certain, at once. Everywhere, a beat counter that has not moved for a whole
lease of *this* process's own clock.
"""

import logging

from sqlalchemy import select
from sqlalchemy.orm import Session

from core import crash
from core.clock import boot_seconds
from core.config import Settings
from core.db import migrate
from core.db.engine import Database
from core.db.models import Job, Worker, is_running
from core.files.lock import is_held
from core.jobs import expiry
from core.jobs.attempt import Attempt
from core.log import bind
from core.periodic import Periodic
from core.workers import service as workers
from core.workers.host import identity, lock_path

log = logging.getLogger(__name__)

WORKER_LOST = "worker_lost"


class Reaper(Periodic):
    """Looks once per ``reap_seconds``, in a thread. Any number may run: every step is fenced."""

    def __init__(self, database: Database, settings: Settings) -> None:
        super().__init__("reaper", settings.reap_seconds, self.look)
        self.database = database
        self.settings = settings
        self.host = identity(settings.run_path)
        self._revision = migrate.head()
        self._seen: dict[str, tuple[int, float]] = {}

    def look(self) -> None:
        """One round. Reads; writes only when somebody died."""
        with self.database.read() as session:
            migrate.require(session, self._revision)
            known = list(session.scalars(select(Worker)))
            running = session.execute(
                select(Job.id, Job.attempt, Job.beat, Job.worker_id).where(is_running)
            ).all()
            late = expiry.overdue(session)
        dead = [worker for worker in known if self._lock_is_free(worker)]
        dead += [
            worker
            for worker in known
            if worker not in dead and self._stalled(worker.id, worker.beat)
        ]
        for worker in dead:
            self._bury(worker)
        for job_id in late:
            with self.database.write() as session:
                expiry.expire(session, job_id)
        buried = {worker.id for worker in dead}
        for job_id, number, beat, worker_id in running:
            if worker_id not in buried and self._stalled(f"{job_id}/{number}", beat):
                self._requeue(job_id, number, beat)
        self._forget_the_gone(
            {worker.id for worker in known} | {f"{row.id}/{row.attempt}" for row in running}
        )

    def _lock_is_free(self, worker: Worker) -> bool:
        return worker.host == self.host and not is_held(
            lock_path(self.settings.run_path, worker.id)
        )

    def _stalled(self, name: str, beat: int) -> bool:
        """Whether this counter has stood still for a lease, as far as this process has seen."""
        at = boot_seconds()
        seen_beat, since = self._seen.get(name, (None, at))
        if beat != seen_beat:
            self._seen[name] = (beat, at)
            return False
        return at - since >= self.settings.lease_seconds

    def _forget_the_gone(self, present: set[str]) -> None:
        for name in self._seen.keys() - present:
            del self._seen[name]

    def _bury(self, worker: Worker) -> None:
        with self.database.write() as session:
            if not workers.forget(session, worker.id, beat=worker.beat):
                return
            lost = _requeue_jobs_of(session, worker)
            crash.point("inside a burial")
        crash.point("after a burial")
        lock_path(self.settings.run_path, worker.id).unlink(missing_ok=True)
        log.warning(
            "a worker died: %d of its jobs are back in the queue",
            len(lost),
            extra={"worker": worker.id, "device": worker.device, "jobs": lost},
        )

    def _requeue(self, job_id: str, number: int, beat: int) -> None:
        with self.database.write() as session:
            job = Attempt(job_id, number).give_back(session, WORKER_LOST, Job.beat == beat)
        if job:
            with bind(job=job_id, attempt=number, request_id=job.request_id):
                log.warning("a job's worker fell silent")


def bury_predecessors(session: Session, worker: Worker) -> list[str]:
    """Of one that has just taken its device's lock: whoever drove the device before is dead for
    certain, and their jobs are nobody's before this worker takes any. Their ids; once this is
    committed, their lock files are of no use."""
    query = select(Worker).where(Worker.device_id == worker.device_id, Worker.id != worker.id)
    others = session.scalars(query).all()
    for other in others:
        _requeue_jobs_of(session, other)
        session.delete(other)
    return [other.id for other in others]


def _requeue_jobs_of(session: Session, worker: Worker) -> list[str]:
    rows = session.execute(
        select(Job.id, Job.attempt).where(Job.worker_id == worker.id, is_running)
    ).all()
    return [
        job_id for job_id, number in rows if Attempt(job_id, number).give_back(session, WORKER_LOST)
    ]
