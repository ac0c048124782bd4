"""Where faults happen: a server whose workers have the light runner, and its database."""

import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import select

from api.client import ApiError, Client, NoAnswer
from core.artifacts.store import Store
from core.db.engine import Database
from core.db.models import Artifact, Event, Job, Worker
from core.ids import new_id
from tests.support import pictures
from tests.support.databases import postgres_database
from tests.support.invariants import Expected, check
from tests.support.light_runner import CHECKPOINT_EVERY, digest_after
from tests.support.redis import redis_server
from tests.support.server import (
    LIGHT,
    SILENT,
    Server,
    children_of,
    command_of,
    descendants_of,
    is_running,
    running,
    wait_until,
)

Answer = TypeVar("Answer")
END_SECONDS = 90.0


Where = Callable[..., AbstractContextManager["Place"]]
"""``embedded`` or ``rack``."""


def insistently(call: Callable[..., Answer], *what: Any, **about: Any) -> Answer:
    """As a client does that heeds Retry-After, and that waits for a server that is away."""
    while True:
        try:
            return call(*what, **about)
        except (ApiError, NoAnswer) as error:
            if isinstance(error, ApiError) and error.status not in (429, 503):
                raise
            time.sleep(0.3)


def submit(client: Client, kind: str, spec: dict[str, Any], **about: Any) -> str:
    """One job, however often it has to be sent; its id."""
    key = new_id("req")
    return insistently(client.submit, kind, spec, idempotency_key=key, **about)["id"]


@dataclass
class Place:
    """What a test does there."""

    server: Server
    database: Database
    client: Client
    dataset: str
    broker_url: str = ""

    def train(self, steps: int = 40, **about: Any) -> str:
        spec = {
            "base": "nano-ssd-1b",
            "dataset": self.dataset,
            "instance_prompt": "a sks dog",
            "steps": steps,
        }
        return submit(self.client, "fine_tune", spec, **about)

    def draw(self, prompt: str = "a dog", **about: Any) -> str:
        spec = {"base": "nano-ssd-1b", "prompt": prompt, "steps": 2}
        return submit(self.client, "generate", spec, **about)

    def job(self, job_id: str) -> Job:
        with self.database.read() as session:
            return session.get_one(Job, job_id)

    def pid_of_worker(self, worker_id: str | None) -> int:
        with self.database.read() as session:
            return session.get_one(Worker, worker_id).pid

    def pid_of_worker_of(self, job_id: str) -> int:
        return self.pid_of_worker(self.job(job_id).worker_id)

    def pid_of_api(self) -> int:
        return next(
            pid for pid in children_of(self.server.process.pid) if "-m\0api\0" in command_of(pid)
        )

    def moves(self, job_id: str) -> list[Event]:
        with self.database.read() as session:
            moves = select(Event).where(Event.job_id == job_id, Event.type == "state")
            return list(session.scalars(moves.order_by(Event.seq)))

    def reasons(self, job_id: str) -> list[str]:
        """Why it was given back, each time."""
        return [move.data["reason"] for move in self.moves(job_id) if "reason" in move.data]

    def wait_for(self, holds: Callable[[], bool], what: str, seconds: float = END_SECONDS) -> None:
        wait_until(holds, seconds, what)

    def wait_for_step(self, job_id: str, step: int = 1) -> None:
        self.wait_for(lambda: self.job(job_id).progress["step"] >= step, f"step {step} is taken")

    def wait_for_end(self, *job_ids: str) -> None:
        for job_id in job_ids:
            self.wait_for(lambda: self.job(job_id).finished_at is not None, f"{job_id} has ended")  # noqa: B023  # called at once

    def check(self, **expected: Any) -> None:
        """Every invariant, and the digest of every training."""
        told = Expected(**{"checkpoint_steps": CHECKPOINT_EVERY} | expected)
        store = Store.of(self.server.settings)
        found = check(self.database, store, told)
        assert not found, found
        check_digests(self.database, store)


def check_digests(database: Database, store: Store) -> None:
    """That every training ended with what it would have ended with undisturbed."""
    with database.read() as session:
        for job in session.scalars(select(Job).where(Job.kind == "fine_tune")):
            if job.state == "succeeded":
                lora = session.get_one(Artifact, (job.result or {})["lora"])
                digest = store.read(lora.files[0]["store_key"]).decode()
                assert digest == digest_after(job.spec["seed"], job.spec["steps"])


@contextmanager
def embedded(
    home: Path, devices: str = "cpu,cpu", supervisor: str = LIGHT, **environment: str
) -> Iterator[Place]:
    with running(home, supervisor, STILLROOM_DEVICES=devices, **SILENT | environment) as server:
        database = Database.of(server.settings)
        with no_orphans(server), place_of(server, database) as place:
            yield place
        database.dispose()


@contextmanager
def rack(home: Path, devices: str = "cpu,cpu", **environment: str) -> Iterator[Place]:
    """With PostgreSQL and Redis."""
    with postgres_database() as database, redis_server(home.parent) as broker_url:
        urls = {
            "STILLROOM_DATABASE_URL": database.engine.url.render_as_string(hide_password=False),
            "STILLROOM_BROKER_URL": broker_url,
        }
        with (
            running(
                home, LIGHT, STILLROOM_DEVICES=devices, **urls, **SILENT | environment
            ) as server,
            no_orphans(server),
            place_of(server, database, broker_url) as place,
        ):
            yield place


@contextmanager
def place_of(server: Server, database: Database, broker_url: str = "") -> Iterator[Place]:
    with server.client() as client:
        dataset = client.create_dataset("dog")["id"]
        client.upload(dataset, pictures.write(server.settings.root.parent / "pictures", 2))
        yield Place(server, database, client, dataset, broker_url)


def somebody_can_write(database: Database) -> bool:
    """Within a second, which is many times as long as any transaction of ours. A worker that is
    frozen inside one of SQLite's keeps everybody out: nobody can take its lock from it."""
    if database.engine.dialect.name != "sqlite":
        return True
    path = str(database.engine.url.database)
    try:
        with closing(sqlite3.connect(path, timeout=1)) as connection:
            connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        return False
    return True


def freeze(pid: int, database: Database) -> None:
    """Between two of its transactions: what happens within one is another test's."""
    os.kill(pid, signal.SIGSTOP)
    while not somebody_can_write(database):
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.05)
        os.kill(pid, signal.SIGSTOP)


@contextmanager
def no_orphans(server: Server) -> Iterator[None]:
    """I7: when the server ends, so does everything that it ever started."""
    yield
    everyone = descendants_of(server.process.pid)
    assert server.end() == 0
    wait_until(lambda: not any(map(is_running, everyone)), 30, "nobody is left")


def hears_the_bell(place: Place, done: list[str]) -> bool:
    """Whether jobs that come now wait for no look: of two in a row the second one cannot meet one
    by chance."""
    waits = []
    for _ in range(2):
        done.append(place.draw())
        place.wait_for_end(done[-1])
        job = place.job(done[-1])
        assert job.started_at
        waits.append((job.started_at - job.created_at).total_seconds())
    return max(waits) < 1.0
