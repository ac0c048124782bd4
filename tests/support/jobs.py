"""Jobs and workers for tests of the queue: the smallest that the real admission lets through."""

from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from core.config import Settings
from core.db.engine import Database
from core.db.models import Event, Job, Worker, is_running
from core.ids import new_id
from core.jobs import service as jobs
from core.jobs.admission import parse
from core.jobs.attempt import Attempt
from core.jobs.claim import claim
from core.jobs.transition import events_after
from core.workers import service as workers
from core.workers.chip import Chip
from core.workers.host import identity
from core.workers.service import BeatAnswer, Condition

BASES = ["nano-sdxl", "nano-ssd-1b"]
CHIP = Chip("cpu", 8_000_000_000)
SPEC = {"base": "nano-ssd-1b", "prompt": "a red circle"}


def submit(
    database: Database,
    settings: Settings,
    *,
    owner: str = "ada",
    kind: str = "generate",
    spec: dict[str, Any] | None = None,
    has_company: bool = False,
    **about: Any,
) -> Job:
    """Alone on its device unless it may have company."""
    with database.write() as session:
        job = jobs.submit(
            session,
            settings,
            owner=owner,
            spec=parse(kind, SPEC if spec is None else spec),
            **about,
        )
        if not has_company:
            job.batch_key = None
        return job


def register(
    database: Database, settings: Settings, *, role: str = "any", device: str = "cpu"
) -> Worker:
    """A worker whose runner is ready."""
    with database.write() as session:
        worker = workers.register(
            session,
            worker_id=new_id("wrk"),
            host=identity(settings.run_path),
            pid=1,
            device=device,
            role=role,
            bases=BASES,
        )
        worker.ready, worker.chip = True, CHIP.name
        worker.memory_bytes = CHIP.memory_bytes
    return worker


def beat(database: Database, worker: Worker, chip: Chip | None = CHIP) -> BeatAnswer:
    with database.write() as session:
        running = select(Job.id).where(Job.worker_id == worker.id, is_running)
        told = Condition(chip, BASES, jobs=session.scalars(running).all())
        return workers.beat(session, worker.id, told)


def take(database: Database, worker: Worker) -> Job:
    """The next job, which must be there, and alone."""
    with database.write() as session:
        (job,) = claim(session, worker, BASES)
    return job


def succeed(database: Database, job: Job, **result: Any) -> Job:
    """As the attempt does that runs it."""
    with database.write() as session:
        return Attempt(job.id, job.attempt).succeed(session, result)


def fail(database: Database, job: Job, code: str = "odd") -> Job:
    with database.write() as session:
        return Attempt(job.id, job.attempt).fail(session, code, "It was told to.")


def change(database: Database, job: Job, **values: Any) -> None:
    """Columns of its row, as time or somebody else would."""
    with database.write() as session:
        session.execute(update(Job).where(Job.id == job.id).values(**values))


def reread(database: Database, job: Job) -> Job:
    with database.read() as session:
        return jobs.get(session, job.owner, job.id)


def history(database: Database, job: Job) -> list[str]:
    """The states it went through, in order."""
    with database.read() as session:
        return [event.data["state"] for event in _events(session, job) if event.type == "state"]


def _events(session: Session, job: Job) -> list[Event]:
    return events_after(session, job.id, after=0, limit=1000)
