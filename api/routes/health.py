"""Whether the process lives, and whether it can do its work."""

from fastapi import APIRouter

from api.deps import DatabaseDep, RevisionDep, StoreDep
from api.schemas.health import HealthRead, ReadyRead
from core.db import migrate
from core.errors import Problem, Unavailable
from core.workers import devices
from core.workers import service as workers

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> HealthRead:
    """The process answers, even when every thread is busy."""
    return HealthRead(status="ok")


@router.get("/readyz")
def readyz(database: DatabaseDep, revision: RevisionDep, store: StoreDep) -> ReadyRead:
    """Database, store and at least one live worker are there, and the database is of the revision
    that this process knows."""
    with database.read() as session:
        migrate.require(session, revision)
        live = workers.open_workers(session)
        held = [device for _, device in workers.everyone(session) if device.state != devices.OPEN]
    store.check()
    if not live:
        detail = "No worker is ready yet: start one with `stillroom serve` or `stillroom worker`."
        if held:
            detail = f"A device is {held[0].state}: `stillroom workers` says why and releases it."
        raise Unavailable(
            detail,
            code="no_worker",
            errors=[Problem("/workers", "no_worker", detail)],
            retry_after_seconds=1,
        )
    return ReadyRead(status="ready", workers=len(live))
