"""F14: claims, wishes, ends and losses in any order that comes to mind: one legal history."""

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from core.artifacts.store import Store
from core.config import Settings
from core.db.engine import Database
from core.db.models import Job, Worker
from core.errors import WrongState
from core.jobs import service as jobs
from core.jobs.attempt import Attempt, LeaseLost
from core.jobs.claim import claim
from core.jobs.reaper import Reaper
from core.jobs.states import TERMINAL
from tests.support import jobs as make
from tests.support.databases import postgres_database, sqlite_database
from tests.support.invariants import Expected, check

NUM_WORKERS = 2
Act = Callable[[object, str, str], Job]


class Interleavings(RuleBasedStateMachine):
    """Two workers, a client and a reaper, each of whom acts on what it last saw."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.settings = Settings(home=folder / "home")
        self.settings.prepare()
        self.database = self.stack.enter_context(self.new_database())
        self.workers = [self._new_worker(number) for number in range(NUM_WORKERS)]
        self.held: dict[int, Attempt] = {}
        self.late: list[Attempt] = []
        """Attempts whose worker was given up, and which do not know it."""
        self.accepted: list[str] = []

    def new_database(self) -> AbstractContextManager[Database]:
        return sqlite_database(self.settings.sqlite_path)

    def _new_worker(self, number: int) -> Worker:
        return make.register(self.database, self.settings, device=f"cpu:{number}")

    @rule(after=strategies.booleans())
    def submit(self, after: bool) -> None:
        parent = self.accepted[-1] if after and self.accepted else None
        if parent and self._state(parent) in TERMINAL:
            parent = None
        job = make.submit(self.database, self.settings, after=parent)
        self.accepted.append(job.id)

    @rule(number=strategies.integers(0, NUM_WORKERS - 1))
    def take(self, number: int) -> None:
        if number not in self.held:
            with self.database.write() as session:
                job = claim(session, self.workers[number], make.BASES)
            if job:
                self.held[number] = Attempt(job.id, job.attempt)

    @precondition(lambda self: self.accepted)
    @rule(
        act=strategies.sampled_from([jobs.cancel, jobs.pause, jobs.resume]),
        pick=strategies.integers(0, 99),
    )
    def wish(self, act: Act, pick: int) -> None:
        job_id = self.accepted[pick % len(self.accepted)]
        with suppress(WrongState), self.database.write() as session:
            act(session, "ada", job_id)

    @precondition(lambda self: self.held)
    @rule(pick=strategies.integers(0, 99), how=strategies.sampled_from(["good", "bad", "back"]))
    def end(self, pick: int, how: str) -> None:
        number = sorted(self.held)[pick % len(self.held)]
        self._write_end(self.held.pop(number), how)

    @precondition(lambda self: self.late)
    @rule(how=strategies.sampled_from(["good", "bad", "back", "progress"]))
    def come_late(self, how: str) -> None:
        self._write_end(self.late.pop(), how)

    @precondition(lambda self: self.held)
    @rule(pick=strategies.integers(0, 99))
    def lose_worker(self, pick: int) -> None:
        """Nobody holds its lock, so the reaper buries it; the attempt may still think it lives."""
        number = sorted(self.held)[pick % len(self.held)]
        Reaper(self.database, self.settings)._bury(self._fresh(self.workers[number]))
        self.late.append(self.held.pop(number))
        self.workers[number] = self._new_worker(number)

    def _fresh(self, worker: Worker) -> Worker:
        with self.database.read() as session:
            return session.get_one(Worker, worker.id)

    def _write_end(self, attempt: Attempt, how: str) -> None:
        with suppress(LeaseLost), self.database.write() as session:
            if how == "good":
                attempt.succeed(session, {"images": []})
            elif how == "bad":
                attempt.fail(session, "odd", "It was told to.")
            elif how == "progress":
                attempt.progress(session, {"step": 1})
            else:
                attempt.give_back(session, "runner_lost")

    def _state(self, job_id: str) -> str:
        with self.database.read() as session:
            return session.get_one(Job, job_id).state

    @invariant()
    def who_holds_a_job_is_the_one(self) -> None:
        with self.database.read() as session:
            for attempt in self.held.values():
                job = session.get_one(Job, attempt.job_id)
                assert (job.state, job.attempt) == ("running", attempt.number)

    def teardown(self) -> None:
        """Lets everything come to its end, and looks at what is written."""
        for number in range(NUM_WORKERS):
            if number in self.held:
                self._write_end(self.held.pop(number), "good")
        for job_id in self.accepted:
            with suppress(WrongState), self.database.write() as session:
                jobs.cancel(session, "ada", job_id)
        with self.database.read() as session:
            ended = {job_id: session.get_one(Job, job_id).state for job_id in self.accepted}
        expected = Expected(
            accepted=self.accepted,
            failed=[job_id for job_id, state in ended.items() if state == "failed"],
            cancelled=[job_id for job_id, state in ended.items() if state == "cancelled"],
        )
        found = check(self.database, Store.of(self.settings), expected)
        self.stack.close()
        assert found == []


Interleavings.TestCase.settings = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestInterleavings = Interleavings.TestCase


class OnPostgres(Interleavings):
    def new_database(self) -> AbstractContextManager[Database]:
        return postgres_database()


OnPostgres.TestCase.settings = Interleavings.TestCase.settings


@pytest.mark.faults
class TestInterleavingsOnPostgres(OnPostgres.TestCase):  # type: ignore
    """The same."""
