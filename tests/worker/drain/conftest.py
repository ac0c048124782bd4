"""A worker's loop, with a real database, a real store and a real process for a runner."""

from collections.abc import Callable, Iterator

import pytest

from core.artifacts.store import Store
from core.config import Settings
from core.db.engine import Database
from core.db.models import Job, Worker
from core.files.lock import LockFile
from tests.core.jobs.test_service import fine_tune, make_dataset
from tests.support import jobs as make
from tests.worker.drain.scene import SCRIPTED, Play
from worker.drain import Drain
from worker.link import Link


@pytest.fixture
def link(settings: Settings) -> Iterator[Link]:
    lock = LockFile.take(settings.run_path / "worker.lock")
    assert lock is not None
    link = Link(lock, command=SCRIPTED)
    link.start()
    assert link.ready.wait(30)
    yield link
    link.close()
    lock.release()


@pytest.fixture
def worker(database: Database, settings: Settings) -> Worker:
    return make.register(database, settings)


@pytest.fixture
def drain(worker: Worker, link: Link, database: Database, settings: Settings) -> Drain:
    return Drain(worker, link, database, Store.of(settings), settings)


@pytest.fixture
def play(database: Database, settings: Settings) -> Play:
    """Submits a job that does what its prompt says."""

    def submit(script: str) -> Job:
        return make.submit(database, settings, spec=make.SPEC | {"prompt": script})

    return submit


@pytest.fixture
def play_together(database: Database, settings: Settings) -> Play:
    """The same, of a job that may have company."""

    def submit(script: str) -> Job:
        spec = make.SPEC | {"prompt": script}
        return make.submit(database, settings, spec=spec, has_company=True)

    return submit


@pytest.fixture
def look(database: Database) -> Callable[[Job], Job]:
    return lambda job: make.reread(database, job)


@pytest.fixture
def training(database: Database, settings: Settings) -> Job:
    """One that takes steps until it is stopped, and is saved then."""
    Store.of(settings).put_bytes("0", b"a picture")
    spec = fine_tune(make_dataset(database, 1), instance_prompt="long")
    return make.submit(database, settings, kind="fine_tune", spec=spec)
