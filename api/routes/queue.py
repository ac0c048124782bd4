"""The queue: how long it is, and where the caller's own jobs stand."""

from fastapi import APIRouter

from api.deps import DatabaseDep, ReaderDep, StandingDep
from api.schemas.devices import PlaceRead, QueueRead
from core.jobs import service as jobs
from core.jobs import standing as standings

router = APIRouter(prefix="/v1/queue", tags=["queue"])


@router.get("")
def read_queue(caller: ReaderDep, database: DatabaseDep, standing: StandingDep) -> QueueRead:
    """Positions are forecasts: the queue is served by priority, then owners take turns."""
    with database.read() as session:
        waiting = jobs.waiting_of(session, caller.owner)
        places = standing.positions(session, waiting)
        etas = standings.eta_seconds(
            session, {job: places[job.id] for job in waiting if job.id in places}
        )
        items = [
            PlaceRead(job=job_id, position=position, eta_seconds=etas[job_id])
            for job_id, position in sorted(places.items(), key=lambda place: place[1])
        ]
        return QueueRead(
            depth=standing.crowd(session).depth,
            running=len(jobs.running_by_worker(session)),
            items=items,
        )
