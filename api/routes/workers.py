"""Workers: what drives the devices, and taking one out of service."""

from fastapi import APIRouter

from api.deps import AdminDep, DatabaseDep, ReaderDep
from api.schemas import Page, WorkerRead
from core.jobs import service as jobs
from core.owners.service import Caller
from core.workers import devices
from core.workers import service as workers

router = APIRouter(prefix="/v1/workers", tags=["workers"])


@router.get("")
def list_workers(caller: ReaderDep, database: DatabaseDep) -> Page[WorkerRead]:
    """Those that live, each with its device."""
    return Page(items=_everyone(caller, database), next_cursor=None)


@router.post("/{worker_id}/drain", status_code=202)
def drain_worker(worker_id: str, caller: AdminDep, database: DatabaseDep) -> WorkerRead:
    """It ends what it runs, and its device claims nothing more until it is released."""
    with database.write() as session:
        devices.drain(session, worker_id)
    return _one(worker_id, caller, database)


@router.post("/{worker_id}/release", status_code=202)
def release_worker(worker_id: str, caller: AdminDep, database: DatabaseDep) -> WorkerRead:
    """Its device claims again, after a drain or out of quarantine."""
    with database.write() as session:
        devices.release(session, worker_id)
    return _one(worker_id, caller, database)


def _everyone(caller: Caller, database: DatabaseDep) -> list[WorkerRead]:
    with database.read() as session:
        running = jobs.running_by_worker(session)
        return [
            WorkerRead.of(worker, device, running.get(worker.id), caller.owner)
            for worker, device in workers.everyone(session)
        ]


def _one(worker_id: str, caller: Caller, database: DatabaseDep) -> WorkerRead:
    return next(worker for worker in _everyone(caller, database) if worker.id == worker_id)
