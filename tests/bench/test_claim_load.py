"""What a claim costs beside a long queue, after a long history, and among many workers.

Ratios of one run. What is compared is measured by turns, so that a neighbour disturbs both alike.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from core.config import Settings
from core.db.engine import Database
from core.db.models import Job, Worker
from core.files.lock import LockFile
from core.jobs.attempt import Attempt
from core.jobs.claim import claim, is_claimable, next_up
from core.jobs.progress import progress_of
from core.jobs.reaper import Reaper
from core.jobs.standing import Standing
from core.workers.host import lock_path
from tests.support.backlog import churn, fill
from tests.support.databases import postgres_database, sqlite_database
from tests.support.jobs import BASES, register, submit

SIZES = (100, 10_000, 100_000)
ROUNDS = 600
MAX_RATIO = 2.0
MAX_POSITIONS_RATIO = 40.0
"""A place is exact, so the queue is counted, entry by entry of an index: of 100,000 in 30 ms on
SQLite, 100 ms on PostgreSQL before a vacuum (19 times what 100 take). A count is used for ten times
what it took, so it is the p99 that tells of it, and not the median."""

OTHERS_SHARE = 0.95
"""One commit in a hundred writes SQLite's log back into the file, and to more places of a larger
one (6 ms instead of 3): of what is no claim, the p99 would tell of that alone."""

HOLD_SECONDS = 600.0
HISTORY = 200_000
AT_ONCE = 1_000
BY_CLAIMS = 100
"""Of so many jobs of the history at once, those that go through claim and attempt one by one."""
DEPTH = 1_000


class Queue:
    """A database with ``depth`` jobs that wait, a worker, and the times that were taken there."""

    def __init__(self, database: Database, folder: Path, depth: int) -> None:
        self.database = database
        self.settings = Settings(home=folder, max_queued_jobs=10**6, lease_seconds=10**6)
        self.settings.prepare()
        fill(database, depth)
        tidy(database)
        self.worker = register(database, self.settings)
        self.lock = LockFile.take(lock_path(self.settings.run_path, self.worker.id))
        self.standing = Standing()
        self.reaper = Reaper(database, self.settings)
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)

    def round(self) -> None:
        """Every look once. As many jobs wait afterwards as before."""
        with self._timed("is_claimable"), self.database.read() as session:
            assert is_claimable(session, self.worker, BASES)
        with self._timed("next_up"), self.database.read() as session:
            next_up(session, self.worker, BASES)
        with self._timed("claim"):
            job = self.claim()
        with self._timed("submit"):
            new = submit(self.database, self.settings, owner=job.owner)
        with self._timed("positions"), self.database.read() as session:
            assert self.standing.positions(session, [new])
        with self._timed("reaper"):
            self.reaper.look()
        with self._timed("succeed"):
            self.succeed(job)

    def live(self, count: int) -> None:
        """``count`` jobs come and go, one by one."""
        for _ in range(count):
            job = self.claim()
            fill(self.database, 1, job.owner)
            with self.database.write() as session:
                told = progress_of(200, 400, message="drawing")
                Attempt(job.id, job.attempt).progress(session, told)
            self.succeed(job)

    def claim(self) -> Job:
        job = self.claim_if_any(self.worker)
        assert job is not None
        return job

    def claim_if_any(self, worker: Worker) -> Job | None:
        with self.database.write() as session:
            return next(iter(claim(session, worker, BASES)), None)

    def succeed(self, job: Job) -> None:
        with self.database.write() as session:
            Attempt(job.id, job.attempt).succeed(session, {})

    def ms(self, look: str, share: float) -> float:
        """So many of the looks, of 1, took no longer."""
        seconds = sorted(self.seconds[look])
        return 1000 * seconds[int(share * (len(seconds) - 1))]

    @contextmanager
    def _timed(self, look: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[look].append(time.perf_counter() - began)


def tidy(database: Database) -> None:
    """As autovacuum does within a minute of so many inserts, too: then counts need indexes only."""
    statement = "VACUUM ANALYZE" if database.engine.dialect.name == "postgresql" else "ANALYZE"
    unwrapped = database.engine.execution_options(isolation_level="AUTOCOMMIT")
    with unwrapped.connect() as connection:
        connection.execute(text(statement))


@contextmanager
def opened(kind: str, path: Path) -> Iterator[Database]:
    path.mkdir()
    with sqlite_database(path / "load.db") if kind == "sqlite" else postgres_database() as database:
        yield database


def told(queue: Queue, look: str) -> str:
    return f"{queue.ms(look, 0.5):.1f}/{queue.ms(look, 0.99):.1f}"


@pytest.mark.bench
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_long_queue(kind: str, tmp_path: Path, tell: Callable[[str], None]) -> None:
    with ExitStack() as stack:
        queues = [
            Queue(
                stack.enter_context(opened(kind, tmp_path / f"{size}")), tmp_path / f"{size}", size
            )
            for size in SIZES
        ]
        for _ in range(ROUNDS):
            for queue in queues:
                queue.round()
    short, *_, long = queues
    ratios = {look: long.ms(look, 0.99) / short.ms(look, 0.99) for look in short.seconds}
    tell(f"{kind}, with {', '.join(map(str, SIZES))} jobs waiting, p50/p99 in ms:")
    for look, ratio in ratios.items():
        tell(f"  {look}: {', '.join(told(queue, look) for queue in queues)}; p99 x {ratio:.2f}")
    assert ratios["claim"] < MAX_RATIO
    assert ratios.pop("positions") < MAX_POSITIONS_RATIO
    others = {look: long.ms(look, OTHERS_SHARE) / short.ms(look, OTHERS_SHARE) for look in ratios}
    assert max(others.values()) < MAX_RATIO, others


@pytest.mark.bench
def test_a_long_history_that_no_vacuum_can_clear(
    tmp_path: Path, tell: Callable[[str], None]
) -> None:
    """Somebody's transaction stays open: nothing that left an index is taken out of it.

    A second database, with as many jobs waiting and no history, is the measure: it is what the
    first was before, and has the same neighbours now.
    """
    with (
        opened("postgresql", tmp_path / "quiet") as quiet_database,
        opened("postgresql", tmp_path / "old") as old_database,
        old_database.engine.connect() as idle,
    ):
        quiet = Queue(quiet_database, tmp_path / "quiet", DEPTH)
        old = Queue(old_database, tmp_path / "old", DEPTH)
        measure(quiet, old)
        tell(f"before, quiet and old: claim {told(quiet, 'claim')}, {told(old, 'claim')}")
        idle.execution_options(isolation_level="REPEATABLE READ").execute(text("SELECT 1"))
        idle.execute(text("SET idle_in_transaction_session_timeout = 0"))  # not one of ours
        idle.execute(text("SELECT txid_current()"))
        began = time.monotonic()
        for _ in range(0, HISTORY, AT_ONCE):
            churn(old_database, old.worker, AT_ONCE - BY_CLAIMS)
            old.live(BY_CLAIMS)
        time.sleep(max(0.0, HOLD_SECONDS - (time.monotonic() - began)))
        measure(quiet, old)
        ratios = {look: old.ms(look, 0.99) / quiet.ms(look, 0.99) for look in old.seconds}
    tell(f"PostgreSQL, no history or {HISTORY} jobs beside an idle transaction, p50/p99 in ms:")
    for look, ratio in ratios.items():
        tell(f"  {look}: {told(quiet, look)}, {told(old, look)}; p99 x {ratio:.2f}")
    # Others walk through what left: the reaper and `positions` through all of it (0.3 s after
    # 200,000 jobs), `submit` through the owner's (25 ms). No index of what runs, or of who waits,
    # can tell, and both are well again with the first vacuum.
    assert max(ratios["claim"], ratios["succeed"]) < MAX_RATIO


def old_jobs(database: Database) -> int:
    """That were begun here and have ended."""
    with database.engine.connect() as connection:
        count = text("SELECT count(*) FROM jobs WHERE finished_at IS NOT NULL")
        return int(connection.execute(count).scalar_one())


def measure(*queues: Queue) -> None:
    for queue in queues:
        queue.seconds.clear()
    for _ in range(ROUNDS):
        for queue in queues:
            queue.round()


@pytest.mark.bench
@pytest.mark.parametrize(("kind", "num_workers"), [("sqlite", 2), ("postgresql", 8)])
def test_many_workers(
    kind: str, num_workers: int, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    with opened(kind, tmp_path / "many") as database:
        queue = Queue(database, tmp_path / "many", DEPTH)
        workers = [register(database, queue.settings) for _ in range(num_workers)]

        def work(worker: Worker) -> list[str]:
            taken = []
            while (job := queue.claim_if_any(worker)) is not None:
                taken.append(job.id)
                queue.succeed(job)
            return taken

        began = time.perf_counter()
        with ThreadPoolExecutor(num_workers) as pool:
            taken = [job_id for ids in pool.map(work, workers) for job_id in ids]
        seconds = time.perf_counter() - began
        ended = old_jobs(database)
    tell(f"{kind}, {num_workers} workers: {DEPTH / seconds:.0f} jobs a second claimed and ended")
    assert len(taken) == len(set(taken)) == ended == DEPTH
