"""Workers: what drives the devices, and taking one out of service."""

from fastapi import APIRouter
from sqlalchemy.orm import Session

from api.deps import AdminDep, DatabaseDep, ReaderDep
from api.schemas.common import Page
from api.schemas.devices import WorkerRead
from core.jobs import service as jobs
from core.owners.service import Caller
from core.workers import devices
from core.workers import service as workers

router = APIRouter(prefix="/v1/workers", tags=["workers"])


@router.get("")
def list_workers(caller: ReaderDep, database: DatabaseDep) -> Page[WorkerRead]:
    """Those that live, each with its device."""
    with database.read() as session:
        return Page(items=_everyone(session, caller), next_cursor=None)


@router.post("/{worker_id}/drain", status_code=202)
def drain_worker(worker_id: str, caller: AdminDep, database: DatabaseDep) -> WorkerRead:
    """It ends what it runs, and its device claims nothing more until it is released."""
    with database.write() as session:
        devices.drain(session, worker_id)
        return _one(session, worker_id, caller)


@router.post("/{worker_id}/release", status_code=202)
def release_worker(worker_id: str, caller: AdminDep, database: DatabaseDep) -> WorkerRead:
    """Its device claims again, after a drain or out of quarantine."""
    with database.write() as session:
        devices.release(session, worker_id)
        return _one(session, worker_id, caller)


def _everyone(session: Session, caller: Caller) -> list[WorkerRead]:
    running = jobs.running_by_worker(session)
    return [
        WorkerRead.of(worker, device, running.get(worker.id), caller.owner)
        for worker, device in workers.everyone(session)
    ]


def _one(session: Session, worker_id: str, caller: Caller) -> WorkerRead:
    return next(worker for worker in _everyone(session, caller) if worker.id == worker_id)
