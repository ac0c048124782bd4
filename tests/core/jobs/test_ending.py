"""What the end of a job means for those that wait for it, and those that wait for them."""

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from core.config import Settings
from core.db.engine import Database
from core.db.models import Job, Worker
from core.errors import LayoutMismatch, NotFound, Unprocessable
from core.jobs import service as jobs
from core.jobs.attempt import Attempt
from core.jobs.ending import count_unfinished
from core.jobs.states import TERMINAL
from tests.core.jobs.test_service import fine_tune, make_dataset
from tests.support.databases import postgres_database
from tests.support.jobs import (
    SPEC,
    fail,
    history,
    register,
    reread,
    submit,
    succeed,
    take,
)


@pytest.fixture
def worker(any_database: Database, settings: Settings) -> Worker:
    return register(any_database, settings)


@pytest.fixture
def postgres() -> Iterator[Database]:
    """For what cannot happen where one writes at a time."""
    with postgres_database() as database:
        yield database


def cancel(database: Database, job: Job) -> None:
    with database.write() as session:
        jobs.cancel(session, job.owner, job.id)


def train(database: Database, settings: Settings, **fields: Any) -> Job:
    owner = fields.pop("owner", "ada")
    spec = fine_tune(make_dataset(database, 1, owner), **fields)
    return submit(database, settings, kind="fine_tune", spec=spec, owner=owner)


def with_lora_of(job: Job, **fields: Any) -> dict[str, Any]:
    return SPEC | {"loras": [{"job": job.id, "weight": 0.5}]} | fields


def test_a_child_is_begun_once_its_parent_has_succeeded(
    any_database: Database, settings: Settings, worker: Worker
) -> None:
    parent = submit(any_database, settings)
    child = submit(any_database, settings, after=parent.id)
    assert (child.after, child.waits, child.progress["message"]) == (parent.id, 1, "waiting")
    succeed(any_database, take(any_database, worker))
    released = reread(any_database, child)
    assert (released.state, released.waits) == ("queued", 0)
    assert released.progress["message"] == "queued"
    assert released.queued_at > child.queued_at  # until now no device kept it waiting
    assert take(any_database, worker).id == child.id


def fail_running(database: Database, worker: Worker) -> Job:
    return fail(database, take(database, worker), code="non_finite_loss")


def cancel_running(database: Database, worker: Worker) -> Job:
    job = take(database, worker)
    cancel(database, job)
    with database.write() as session:
        Attempt(job.id, job.attempt).cancel(session)
    return job


@pytest.mark.parametrize(
    ("end", "how"),
    [(fail_running, "failed (non_finite_loss)"), (cancel_running, "cancelled")],
)
def test_a_child_fails_with_its_parents_name(
    any_database: Database,
    settings: Settings,
    worker: Worker,
    end: Callable[[Database, Worker], Job],
    how: str,
) -> None:
    parent = submit(any_database, settings)
    child = submit(any_database, settings, after=parent.id)
    end(any_database, worker)
    failed = reread(any_database, child)
    assert (failed.state, failed.waits, failed.attempt) == ("failed", 0, 0)
    assert failed.error == {
        "code": "parent_failed",
        "detail": f"It was to come after '{parent.id}', which has {how}.",
    }
    assert failed.finished_at is not None
    assert history(any_database, child) == ["queued", "failed"]


def test_a_cancelled_parent_takes_children_and_grandchildren_along(
    any_database: Database, settings: Settings
) -> None:
    parent = submit(any_database, settings)
    child = submit(any_database, settings, after=parent.id)
    sibling = submit(any_database, settings, after=parent.id)
    grandchild = submit(any_database, settings, after=child.id)
    bystander = submit(any_database, settings)
    cancel(any_database, parent)
    for job in (child, sibling, grandchild):
        assert reread(any_database, job).state == "failed"
    error = reread(any_database, grandchild).error
    assert error is not None
    assert f"'{child.id}', which has failed (parent_failed)" in error["detail"]
    assert reread(any_database, bystander).state == "queued"


def test_a_chain_may_be_long(any_database: Database, settings: Settings) -> None:
    chain = [submit(any_database, settings)]
    for _ in range(300):
        chain.append(submit(any_database, settings, after=chain[-1].id))
    cancel(any_database, chain[0])
    with any_database.read() as session:
        states = [session.get_one(Job, job.id).state for job in chain]
    assert states == ["cancelled"] + 300 * ["failed"]


def test_a_child_may_be_paused_meanwhile(
    any_database: Database, settings: Settings, worker: Worker
) -> None:
    parent = submit(any_database, settings)
    child = submit(any_database, settings, after=parent.id)
    with any_database.write() as session:
        jobs.pause(session, "ada", child.id)
    with any_database.write() as session:
        assert jobs.resume(session, "ada", child.id).progress["message"] == "waiting"
    with any_database.write() as session:
        jobs.pause(session, "ada", child.id)
    succeed(any_database, take(any_database, worker))
    paused = reread(any_database, child)
    assert (paused.state, paused.waits, paused.progress["message"]) == ("paused", 0, "paused")
    with any_database.write() as session:
        assert jobs.resume(session, "ada", child.id).progress["message"] == "queued"
    assert take(any_database, worker).id == child.id


def test_a_paused_child_fails_with_its_parent(any_database: Database, settings: Settings) -> None:
    parent = submit(any_database, settings)
    child = submit(any_database, settings, after=parent.id)
    with any_database.write() as session:
        jobs.pause(session, "ada", child.id)
    cancel(any_database, parent)
    assert reread(any_database, child).state == "failed"


def test_a_child_that_was_cancelled_stays_so(
    any_database: Database, settings: Settings, worker: Worker
) -> None:
    parent = submit(any_database, settings)
    child = submit(any_database, settings, after=parent.id)
    cancel(any_database, child)
    fail_running(any_database, worker)
    assert reread(any_database, child).state == "cancelled"
    assert history(any_database, child) == ["queued", "cancelled"]


def test_a_child_of_several_waits_for_the_last_of_them(
    any_database: Database, settings: Settings, worker: Worker
) -> None:
    first, second = train(any_database, settings), train(any_database, settings)
    loras = [{"job": first.id}, {"job": second.id}, {"job": second.id}]
    child = submit(any_database, settings, spec=SPEC | {"loras": loras}, after=first.id)
    assert child.waits == 2
    succeed(any_database, take(any_database, worker))
    assert reread(any_database, child).waits == 1
    assert reread(any_database, child).progress["message"] == "waiting"
    succeed(any_database, take(any_database, worker))
    assert reread(any_database, child).waits == 0


def test_one_parent_that_fails_is_enough(
    any_database: Database, settings: Settings, worker: Worker
) -> None:
    first, second = train(any_database, settings), train(any_database, settings)
    child = submit(any_database, settings, spec=with_lora_of(first), after=second.id)
    cancel(any_database, second)
    assert reread(any_database, child).state == "failed"
    succeed(any_database, take(any_database, worker))
    assert history(any_database, child) == ["queued", "failed"]


def test_a_parent_that_has_succeeded_is_not_waited_for(
    any_database: Database, settings: Settings, worker: Worker
) -> None:
    parent = submit(any_database, settings)
    succeed(any_database, take(any_database, worker))
    child = submit(any_database, settings, after=parent.id)
    assert (child.waits, child.progress["message"]) == (0, "queued")
    assert take(any_database, worker).id == child.id


def test_a_parent_that_ended_otherwise_is_refused_by_name(
    any_database: Database, settings: Settings, worker: Worker
) -> None:
    parent = submit(any_database, settings)
    fail(any_database, take(any_database, worker))
    with pytest.raises(Unprocessable, match=rf"'{parent.id}' has failed \(odd\)") as refused:
        submit(any_database, settings, after=parent.id)
    assert refused.value.code == "parent_failed"


def test_another_owners_parent_is_not_there(any_database: Database, settings: Settings) -> None:
    theirs = train(any_database, settings, owner="bob")
    for about in ({"after": theirs.id}, {"spec": with_lora_of(theirs)}, {"after": "job_no"}):
        with pytest.raises(NotFound, match="no job"):
            submit(any_database, settings, **about)


def test_only_a_fine_tune_makes_a_lora(any_database: Database, settings: Settings) -> None:
    drawing = submit(any_database, settings)
    with pytest.raises(Unprocessable, match=r"generate job: only fine_tune") as refused:
        submit(any_database, settings, spec=with_lora_of(drawing))
    assert refused.value.code == "not_a_lora"


def test_a_lora_to_be_must_fit_the_base(any_database: Database, settings: Settings) -> None:
    training = train(any_database, settings, base="nano-sdxl")
    with pytest.raises(LayoutMismatch, match=rf"'{training.id}'.*nano-sdxl.*nano-ssd-1b"):
        submit(any_database, settings, spec=with_lora_of(training))
    child = submit(any_database, settings, spec=with_lora_of(training, base="nano-sdxl"))
    assert child.waits == 1
    assert child.spec["loras"] == [{"artifact": None, "job": training.id, "weight": 0.5}]


@pytest.mark.parametrize("lora", [{}, {"job": "job_1", "artifact": "art_1"}])
def test_a_lora_is_named_in_one_way(
    database: Database, settings: Settings, lora: dict[str, str]
) -> None:
    with pytest.raises(ValueError, match="artifact"):
        submit(database, settings, spec=SPEC | {"loras": [lora]})


def test_a_parent_that_ends_during_a_submit_is_seen_as_it_is(
    postgres: Database, settings: Settings
) -> None:
    """Although the same transaction has looked at it before."""
    worker = register(postgres, settings)
    submit(postgres, settings)
    parent = take(postgres, worker)
    with postgres.write() as session:
        seen = session.get_one(Job, parent.id)
        assert seen.state == "running"
        succeed(postgres, parent)
        assert count_unfinished(session, "ada", {parent.id}) == 0


def test_a_submit_that_races_with_its_parents_end_never_waits_for_ever(
    postgres: Database, settings: Settings
) -> None:
    worker = register(postgres, settings)
    for ends_well in 10 * (True, False):
        submit(postgres, settings)
        parent = take(postgres, worker)
        children: list[Job] = []
        start = threading.Barrier(2)
        racing = threading.Thread(
            target=submit_all, args=(postgres, settings, parent, children, start)
        )
        racing.start()
        start.wait()
        succeed(postgres, parent) if ends_well else fail(postgres, parent)
        racing.join()
        for child in children:
            assert reread(postgres, child).waits == 0
            assert (reread(postgres, child).state in TERMINAL) != ends_well
            if ends_well:
                succeed(postgres, take(postgres, worker))


def submit_all(
    database: Database,
    settings: Settings,
    parent: Job,
    children: list[Job],
    start: threading.Barrier,
) -> None:
    """Some before the parent's end, some after it, most likely."""
    start.wait()
    for _ in range(4):
        with suppress(Unprocessable):  # it has failed already
            children.append(submit(database, settings, after=parent.id))


def test_two_parents_that_end_at_once_release_all_their_children(
    postgres: Database, settings: Settings
) -> None:
    worker = register(postgres, settings)
    parents = [train(postgres, settings) for _ in range(2)]
    spec = SPEC | {"loras": [{"job": parent.id} for parent in parents]}
    children = [submit(postgres, settings, spec=spec) for _ in range(10)]
    running = [take(postgres, worker) for _ in parents]
    ending = [threading.Thread(target=succeed, args=(postgres, job)) for job in running]
    for thread in ending:
        thread.start()
    for thread in ending:
        thread.join()
    assert [reread(postgres, child).waits for child in children] == [0] * 10
