"""A live worker of another host: no lock file of ours says whether it lives."""

from typing import Any

from core.db.engine import Database
from core.ids import new_id
from core.workers import service as workers


def worker(database: Database, *bases: str, device: str = "cpu", **about: Any) -> str:
    """Its id. It is ready; ``about`` are further fields of its row."""
    with database.write() as session:
        row = workers.register(
            session,
            worker_id=new_id("wrk"),
            host="elsewhere",
            pid=1,
            device=device,
            role="any",
            bases=list(bases),
        )
        for name, value in {"ready": True, **about}.items():
            setattr(row, name, value)
    return row.id
