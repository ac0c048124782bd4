"""F14: claims, wishes, ends and losses in any order that comes to mind: one legal history."""

import tempfile
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy.orm import Session

from core.artifacts.store import Store
from core.config import Settings
from core.db.engine import Database
from core.db.models import Job, Worker
from core.errors import Unprocessable, WrongState
from core.jobs import expiry
from core.jobs import service as jobs
from core.jobs.attempt import Attempt, LeaseLost
from core.jobs.claim import claim
from core.jobs.reaper import Reaper
from core.jobs.states import TERMINAL
from tests.support import jobs as make
from tests.support.databases import postgres_database, sqlite_database
from tests.support.invariants import Expected, check

NUM_WORKERS = 2
Act = Callable[[Session, str, str], Job]


ENDS: dict[str, Callable[[Attempt, Session], Job | None]] = {
    "good": lambda attempt, session: attempt.succeed(session, {"images": []}),
    "bad": lambda attempt, session: attempt.fail(session, "odd", "It was told to."),
    "back": lambda attempt, session: attempt.give_back(session, "runner_lost"),
    "make way": lambda attempt, session: attempt.give_back(session, "preempted", in_vain=False),
    "step down": lambda attempt, session: attempt.give_back(session, "out_of_memory", rung=1),
}


class Foretold:
    """How each job must end, worked out from what was done to it and from nothing that is written
    about it."""

    def __init__(self) -> None:
        self.ends: dict[str, str] = {}
        self._children: dict[str, list[str]] = {}
        self._unwanted: set[str] = set()

    def come_after(self, job_id: str, parents: Iterable[str]) -> None:
        for parent in parents:
            self._children.setdefault(parent, []).append(job_id)

    def parents_of(self, job_id: str) -> list[str]:
        return [parent for parent, children in self._children.items() if job_id in children]

    def end(self, job_id: str, state: str) -> None:
        """And with it, unless it is a good end, whatever waits for it."""
        if job_id in self.ends:
            return
        self.ends[job_id] = state
        if state != "succeeded":
            for child in self._children.get(job_id, []):
                self.end(child, "failed")

    def ask_to_cancel(self, job_id: str, *, runs: bool) -> None:
        if runs:
            self._unwanted.add(job_id)
        else:
            self.end(job_id, "cancelled")

    def give_back(self, job_id: str) -> None:
        if job_id in self._unwanted:
            self.end(job_id, "cancelled")


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
        self.held: dict[int, list[Attempt]] = {number: [] for number in range(NUM_WORKERS)}
        self.late: list[Attempt] = []
        """Attempts whose worker was given up, and which do not know it."""
        self.accepted: list[str] = []
        self.begun: set[str] = set()
        self.foretold = Foretold()

    def new_database(self) -> AbstractContextManager[Database]:
        return sqlite_database(self.settings.sqlite_path)

    def _new_worker(self, number: int) -> Worker:
        return make.register(self.database, self.settings, device=f"cpu:{number}")

    @rule(after=strategies.booleans())
    def submit(self, after: bool) -> None:
        parents = [self.accepted[-1]] if after and self.accepted else []
        if any(self.foretold.ends.get(parent) for parent in parents):
            parents = []
        job = make.submit(
            self.database, self.settings, after=next(iter(parents), None), has_company=True
        )
        self.accepted.append(job.id)
        self.foretold.come_after(job.id, parents)

    @rule(number=strategies.integers(0, NUM_WORKERS - 1))
    def take(self, number: int) -> None:
        if not self.held[number]:
            with self.database.write() as session:
                taken = claim(session, self.workers[number], make.BASES)
            self.held[number] = [Attempt(job.id, job.attempt) for job in taken]
            self.begun |= {job.id for job in taken}

    @precondition(lambda self: self.accepted)
    @rule(pick=strategies.integers(0, 99))
    def cancel(self, pick: int) -> None:
        job_id = self._any(pick)
        if self._ask(jobs.cancel, job_id):
            runs = job_id in {attempt.job_id for attempt in self._all_held()}
            self.foretold.ask_to_cancel(job_id, runs=runs)

    @precondition(lambda self: self.accepted)
    @rule(act=strategies.sampled_from([jobs.pause, jobs.resume]), pick=strategies.integers(0, 99))
    def pause_or_resume(self, act: Act, pick: int) -> None:
        self._ask(act, self._any(pick))

    @precondition(lambda self: self.accepted)
    @rule(pick=strategies.integers(0, 99))
    def expire(self, pick: int) -> None:
        job_id = self._any(pick)
        with self.database.write() as session:
            expired = expiry.expire(session, job_id)
        if expired:
            assert job_id not in self.begun
            assert job_id not in self.foretold.ends
            self.foretold.end(job_id, "expired")

    @precondition(lambda self: self.accepted)
    @rule(pick=strategies.integers(0, 99))
    def retry(self, pick: int) -> None:
        job_id = self._any(pick)
        with suppress(WrongState, Unprocessable), self.database.write() as session:
            job = jobs.retry(session, self.settings, "ada", job_id)
            assert self.foretold.ends[job_id] in ("failed", "cancelled", "expired")
            self.accepted.append(job.id)
            self.foretold.come_after(job.id, self.foretold.parents_of(job_id))

    @precondition(lambda self: self._all_held())
    @rule(pick=strategies.integers(0, 99), how=strategies.sampled_from([*ENDS]))
    def end(self, pick: int, how: str) -> None:
        """One of a batch: the others go on."""
        attempts = self._all_held()
        attempt = attempts[pick % len(attempts)]
        for held in self.held.values():
            if attempt in held:
                held.remove(attempt)
        self._write_end(attempt, how)

    @precondition(lambda self: self.late)
    @rule(how=strategies.sampled_from([*ENDS, "progress"]))
    def come_late(self, how: str) -> None:
        attempt, before = self.late.pop(), dict(self.foretold.ends)
        self._write_end(attempt, how)
        assert self.foretold.ends == before, "it wrote an end"

    @rule(number=strategies.integers(0, NUM_WORKERS - 1))
    def lose_worker(self, number: int) -> None:
        """Nobody holds its lock, so the reaper buries it; its attempts may still think it lives."""
        Reaper(self.database, self.settings)._bury(self._fresh(self.workers[number]))
        lost, self.held[number] = self.held[number], []
        self.late += lost
        for attempt in lost:
            self.foretold.give_back(attempt.job_id)
        self.workers[number] = self._new_worker(number)

    def _all_held(self) -> list[Attempt]:
        return [attempt for held in self.held.values() for attempt in held]

    def _any(self, pick: int) -> str:
        return self.accepted[pick % len(self.accepted)]

    def _ask(self, act: Act, job_id: str) -> bool:
        """Whether it could be asked."""
        with suppress(WrongState), self.database.write() as session:
            act(session, "ada", job_id)
            return True
        return False

    def _fresh(self, worker: Worker) -> Worker:
        with self.database.read() as session:
            return session.get_one(Worker, worker.id)

    def _write_end(self, attempt: Attempt, how: str) -> None:
        with suppress(LeaseLost):
            with self.database.write() as session:
                gone = not ENDS[how](attempt, session) if how in ENDS else False
                if how == "progress":
                    attempt.progress(session, {"step": 1})
            if gone:
                return
            if how in ("good", "bad"):
                self.foretold.end(attempt.job_id, "succeeded" if how == "good" else "failed")
            else:
                self.foretold.give_back(attempt.job_id)

    @invariant()
    def who_holds_a_job_is_the_one(self) -> None:
        with self.database.read() as session:
            for attempt in self._all_held():
                job = session.get_one(Job, attempt.job_id)
                assert (job.state, job.attempt) == ("running", attempt.number)

    @invariant()
    def what_has_ended_is_what_had_to(self) -> None:
        with self.database.read() as session:
            states = {job_id: session.get_one(Job, job_id).state for job_id in self.accepted}
        ends = {job_id: state for job_id, state in states.items() if state in TERMINAL}
        assert ends == self.foretold.ends

    def teardown(self) -> None:
        """Lets everything come to its end, and looks at what is written."""
        for attempt in self._all_held():
            self._write_end(attempt, "good")
        for job_id in self.accepted:
            if self._ask(jobs.cancel, job_id):
                self.foretold.ask_to_cancel(job_id, runs=False)
        ends = self.foretold.ends.items()
        expected = Expected(
            accepted=self.accepted,
            failed=[job_id for job_id, state in ends if state == "failed"],
            cancelled=[job_id for job_id, state in ends if state == "cancelled"],
        )
        found = check(self.database, Store.of(self.settings), expected)
        self.stack.close()
        assert found == []


Interleavings.TestCase.settings = settings(
    max_examples=25,
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
