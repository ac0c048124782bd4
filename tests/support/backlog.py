"""Long queues and long histories for benches: the rows that ``submit``, a claim and an attempt
leave, many in one transaction."""

import random
from collections.abc import Iterator
from functools import cache
from itertools import cycle, islice
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from core.db.engine import Database
from core.db.models import Event, Job, Worker, in_lane, now
from core.ids import new_id
from core.jobs import lanes
from core.jobs.admission import parse
from core.jobs.claim import RAISE_SHARE
from core.jobs.progress import progress_of

OWNERS = 50
AT_ONCE = 1_000
_PROMPT = "a photo of sks dog on a wooden table in the evening sun, shallow depth of field, 35 mm"
_SPECS: dict[str, dict[str, Any]] = {
    "generate": {"base": "nano-ssd-1b", "prompt": _PROMPT, "steps": 20, "images": 2, "seed": 7},
    "fine_tune": {
        "base": "nano-sdxl",
        "dataset": new_id("dst"),
        "instance_prompt": "a photo of sks dog",
        "steps": 400,
        "seed": 7,
    },
}


def fill(database: Database, count: int, *owners: str) -> None:
    """``count`` jobs more, of each owner and kind in turn."""
    turns = cycle((owner, kind) for kind in _SPECS for owner in owners or _everyone())
    for first in range(0, count, AT_ONCE):
        _queue(database, islice(turns, min(AT_ONCE, count - first)))


def churn(database: Database, worker: Worker, count: int) -> None:
    """``count`` jobs come, are claimed, tell of a step and succeed: the same versions of each row
    as if one by one."""
    fill(database, count)
    with database.read() as session:
        oldest = select(Job.id).where(in_lane).order_by(Job.id).limit(count)
        ids = list(session.scalars(oldest))
    _change(
        database,
        ids,
        state="running",
        attempt=1,
        worker_id=worker.id,
        device=worker.device,
        beat=Job.beat + 1,
        claimed_at=now(),
        started_at=now(),
    )
    _raise_floors(database, ids)
    _change(database, ids, progress=progress_of(200, 400, message="drawing"))
    _change(database, ids, state="succeeded", result={}, finished_at=now(), device_seconds=1.0)


def _everyone() -> list[str]:
    return [f"owner-{number:02}" for number in range(OWNERS)]


def _queue(database: Database, turns: Iterator[tuple[str, str]]) -> None:
    jobs = list(turns)
    with database.write() as session:
        entered = {turn: _entered(session, *turn) for turn in dict.fromkeys(jobs)}
        rows = [entered[turn] | {"id": new_id("job")} for turn in jobs]
        session.execute(insert(Job), rows)
        session.execute(insert(Event), [_event(row["id"], 1, "queued") for row in rows])


def _entered(session: Session, owner: str, kind: str) -> dict[str, Any]:
    """A job in its lane; whoever is younger may stand there too."""
    row = {"owner": owner} | _job(kind)
    job = Job(id=new_id("job"), **row)
    lanes.enter(session, job)
    return row | {"lane": job.lane, "created_at": job.created_at, "queued_at": job.queued_at}


@cache
def _job(kind: str) -> dict[str, Any]:
    spec = parse(kind, _SPECS[kind])
    return {
        "kind": kind,
        "state": "queued",
        "base": spec.base,
        "also_base": None,
        "spec": spec.model_dump(mode="json"),
        "labels": {},
        "progress": progress_of(0, 400, message="queued"),
        "priority": 0,
        "last_seq": 1,
    }


def _change(database: Database, ids: list[str], **values: Any) -> None:
    with database.write() as session:
        changed = session.execute(
            update(Job)
            .where(Job.id.in_(ids))
            .values(last_seq=Job.last_seq + 1, **values)
            .returning(Job.id, Job.last_seq, Job.state)
        )
        session.execute(insert(Event), [_event(*row) for row in changed])


def _raise_floors(database: Database, ids: list[str]) -> None:
    """As often as claims do."""
    with database.write() as session:
        for job_id in ids:
            if random.random() < RAISE_SHARE:
                lanes.raise_floor(session, session.get_one(Job, job_id))


def _event(job_id: str, seq: int, state: str) -> dict[str, Any]:
    return {"job_id": job_id, "seq": seq, "type": "state", "attempt": 1, "data": {"state": state}}
