"""Deliveries are of the transaction that they tell of, sent by one at a time, and forgotten."""

import json
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, get_args

import pytest
from sqlalchemy import event, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import make_transient

from core.artifacts.store import Store
from core.config import Settings
from core.db.engine import Database
from core.db.models import Delivery, Webhook, Worker, now
from core.errors import NotFound, TooMany, Unprocessable
from core.jobs import removal
from core.jobs import service as jobs
from core.jobs.attempt import Attempt
from core.jobs.states import State
from core.retention import Retention
from core.webhooks import outbox
from core.webhooks import service as webhooks
from core.webhooks.outbox import PAUSES_SECONDS, Answer, Call
from tests.support import jobs as make
from tests.support.webhooks import change, create, pass_time, ring, told

DOWN = Answer(503, "It answered 503.")


@pytest.fixture
def webhook(any_database: Database) -> Webhook:
    return create(any_database)


@pytest.fixture
def worker(any_database: Database, settings: Settings) -> Worker:
    return make.register(any_database, settings)


@pytest.fixture
def own(database: Database) -> Webhook:
    """On SQLite alone, for what no database does differently."""
    return create(database)


@pytest.fixture
def hand(database: Database, settings: Settings) -> Worker:
    return make.register(database, settings)


def events(database: Database, webhook: Webhook | None = None) -> list[str]:
    return [delivery.event for delivery in told(database, webhook)]


def claim(database: Database, webhook: Webhook) -> Call | None:
    with database.write() as session:
        return outbox.claim(session, webhook.id)


def claimed(database: Database, webhook: Webhook) -> Call:
    call = claim(database, webhook)
    assert call is not None
    return call


def settle(database: Database, call: Call, answer: Answer) -> Delivery | None:
    with database.write() as session:
        return outbox.settle(session, call, answer)


def test_the_events_are_the_states() -> None:
    assert set(get_args(webhooks.Event)) == {f"job.{state}" for state in State}


def test_a_job_tells_each_change_as_it_was(
    any_database: Database, settings: Settings, webhook: Webhook, worker: Worker
) -> None:
    about: dict[str, Any] = {"name": "dog", "labels": {"user": "7"}}
    job = make.submit(any_database, settings, webhook=webhook.id, request_id="build-7", **about)
    make.succeed(any_database, make.take(any_database, worker), images=["art_1"])
    bodies = [json.loads(delivery.body) for delivery in told(any_database, webhook)]
    assert [body["type"] for body in bodies] == ["job.queued", "job.running", "job.succeeded"]
    first, _, last = (body["data"] for body in bodies)
    assert (first["state"], first["seq"], first["result"], first["attempt"]) == (
        *("queued", 1, None, 0),
    )
    for datum in (first, last):
        assert about.items() <= datum.items()
        assert (datum["id"], datum["kind"]) == (job.id, "generate")
    assert (last["state"], last["seq"], last["attempt"]) == ("succeeded", 3, 1)
    assert last["result"] == {"images": ["art_1"]}
    assert last["created_at"].endswith("Z")
    assert datetime.fromisoformat(last["finished_at"]) <= now()
    assert make.SPEC["prompt"] not in str(bodies)
    assert {delivery.request_id for delivery in told(any_database)} == {"build-7"}
    assert {delivery.job_id for delivery in told(any_database)} == {job.id}


def test_every_way_a_job_goes(
    database: Database, settings: Settings, own: Webhook, hand: Worker
) -> None:
    paused = make.submit(database, settings, webhook=own.id)
    with database.write() as session:
        jobs.pause(session, "ada", paused.id)
    with database.write() as session:
        jobs.resume(session, "ada", paused.id)
    child = make.submit(database, settings, webhook=own.id, after=paused.id)
    with database.write() as session:
        jobs.cancel(session, "ada", paused.id)
    of: dict[str | None, list[str]] = {paused.id: [], child.id: []}
    for delivery in told(database, own):
        of[delivery.job_id].append(delivery.event)
    assert of[paused.id] == ["job.queued", "job.paused", "job.queued", "job.cancelled"]
    assert of[child.id] == ["job.queued", "job.failed"]
    error = json.loads(told(database)[-1].body)["data"]["error"]
    assert error["code"] == "parent_failed"


def test_only_what_it_is_for(database: Database, settings: Settings, hand: Worker) -> None:
    webhook = create(database, events=["job.failed"])
    make.submit(database, settings, webhook=webhook.id)
    make.fail(database, make.take(database, hand))
    assert events(database) == ["job.failed"]


def test_what_is_rolled_back_rings_nothing(
    any_database: Database, settings: Settings, webhook: Webhook, worker: Worker
) -> None:
    make.submit(any_database, settings, webhook=webhook.id)
    job = make.take(any_database, worker)
    with any_database.write() as session:
        Attempt(job.id, job.attempt).succeed(session, {"images": []})
        session.rollback()
    assert events(any_database) == ["job.queued", "job.running"]
    assert make.reread(any_database, job).state == "running"


@pytest.fixture
def statements(database: Database) -> Iterator[list[str]]:
    said: list[str] = []

    def keep(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        said.append(statement)

    event.listen(database.engine, "before_cursor_execute", keep)
    yield said
    event.remove(database.engine, "before_cursor_execute", keep)


def test_jobs_that_name_none_ask_nothing(
    database: Database, settings: Settings, hand: Worker, statements: list[str]
) -> None:
    make.submit(database, settings)
    make.succeed(database, make.take(database, hand))
    assert len(statements) > 5
    assert not [each for each in statements if "webhooks" in each or "webhook_del" in each]


def test_a_job_names_one_of_its_owners(
    database: Database, settings: Settings, own: Webhook
) -> None:
    for owner, name in (("bob", own.id), ("ada", "whk_nothing")):
        with pytest.raises(Unprocessable, match=name) as refused:
            make.submit(database, settings, owner=owner, webhook=name)
        assert (refused.value.code, refused.value.errors[0].pointer) == (
            *("webhook_unknown", "/webhook"),
        )


def test_a_job_goes_on_without_its_webhook(
    any_database: Database, settings: Settings, webhook: Webhook, worker: Worker
) -> None:
    make.submit(any_database, settings, webhook=webhook.id)
    call = claimed(any_database, webhook)
    with any_database.write() as session:
        webhooks.delete(session, "ada", webhook.id)
    assert settle(any_database, call, Answer(204)) is None
    job = make.succeed(any_database, make.take(any_database, worker))
    assert (job.state, events(any_database)) == ("succeeded", [])


def test_a_retry_keeps_it_as_long_as_it_is_there(
    database: Database, settings: Settings, own: Webhook, hand: Worker
) -> None:
    make.submit(database, settings, webhook=own.id)
    job = make.fail(database, make.take(database, hand))
    with database.write() as session:
        assert jobs.retry(session, settings, "ada", job.id).webhook == own.id
    assert events(database)[-1] == "job.queued"
    with database.write() as session:
        webhooks.delete(session, "ada", own.id)
    with database.write() as session:
        assert jobs.retry(session, settings, "ada", job.id).webhook is None


def test_what_was_told_of_a_job_goes_with_it(
    any_database: Database, settings: Settings, webhook: Webhook, worker: Worker
) -> None:
    make.submit(any_database, settings, webhook=webhook.id)
    job = make.fail(any_database, make.take(any_database, worker))
    ring(any_database, webhook)
    with any_database.write() as session:
        removal.remove(session, settings, "ada", job.id)
    assert events(any_database) == ["webhook.test"]


def test_two_that_claim_at_once_never_get_the_same(
    any_database: Database, webhook: Webhook
) -> None:
    rung = {ring(any_database, webhook).id for _ in range(8)}
    got: list[str] = []

    def take() -> None:
        while len(got) < len(rung):
            call = claim(any_database, webhook)
            if call is not None:
                got.append(call.delivery_id)

    threads = [threading.Thread(target=take) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == sorted(rung)


def test_who_died_at_it_is_waited_for_as_long_as_a_lease(
    any_database: Database, webhook: Webhook
) -> None:
    ring(any_database, webhook)
    lost = claimed(any_database, webhook)
    assert claim(any_database, webhook) is None
    pass_time(any_database, seconds=1)
    again = claimed(any_database, webhook)
    assert (again.delivery_id, again.attempt) == (lost.delivery_id, 2)
    assert settle(any_database, lost, DOWN) is None  # it was frozen, and comes too late
    settled = settle(any_database, again, Answer(204))
    assert settled is not None
    assert (settled.state, settled.next_attempt_at) == ("delivered", None)


def test_pauses_grow_for_a_day(database: Database, own: Webhook) -> None:
    ring(database, own)
    for seconds in PAUSES_SECONDS:
        settled = settle(database, claimed(database, own), DOWN)
        assert settled is not None
        assert settled.next_attempt_at is not None
        pause = (settled.next_attempt_at - now()).total_seconds()
        assert 0.9 * seconds - 5 < pause <= 1.1 * seconds
        assert (settled.state, settled.status, settled.error) == ("pending", 503, DOWN.error)
        assert claim(database, own) is None
        pass_time(database)
    settled = settle(database, claimed(database, own), DOWN)
    assert settled is not None
    assert (settled.state, settled.attempts) == ("failed", len(PAUSES_SECONDS) + 1)
    assert (settled.next_attempt_at, settled.error) == (None, DOWN.error)
    assert 0.8 < sum(PAUSES_SECONDS) / timedelta(days=1).total_seconds() < 1 / 1.1


@pytest.mark.parametrize(
    ("answer", "state", "seconds"),
    [
        (Answer(503, "No.", retry_after_seconds=3600), "pending", 3600),
        (Answer(503, "No.", retry_after_seconds=-5), "pending", 5),
        (Answer(503, "No.", retry_after_seconds=90_000), "failed", None),
        (Answer(503, "No.", retry_after_seconds=1e300), "failed", None),
        (Answer(410, "Gone."), "failed", None),
        (Answer(None, "There was no connection."), "pending", 5),
        (Answer(200), "delivered", None),
    ],
)
def test_what_an_answer_means(
    answer: Answer, state: str, seconds: float | None, database: Database, own: Webhook
) -> None:
    ring(database, own)
    settled = settle(database, claimed(database, own), answer)
    assert settled is not None
    assert settled.state == state
    if seconds is None:
        assert settled.next_attempt_at is None
    else:
        assert settled.next_attempt_at is not None
        assert settled.next_attempt_at > now() + timedelta(seconds=0.9 * seconds - 5)


def test_nothing_is_tried_after_a_day(database: Database, own: Webhook) -> None:
    ring(database, own)
    change(database, gives_up_at=now())
    settled = settle(database, claimed(database, own), DOWN)
    assert settled is not None
    assert settled.state == "failed"


def redeliver(database: Database, webhook: Webhook, delivery: Delivery) -> Delivery:
    with database.write() as session:
        return webhooks.redeliver(session, "ada", webhook.id, delivery.id)


def test_sent_again_it_is_new_but_for_its_name(database: Database, own: Webhook) -> None:
    delivery = ring(database, own)
    settle(database, claimed(database, own), Answer(410, "Gone."))
    again = redeliver(database, own, delivery)
    assert (again.id, again.state, again.attempts) == (delivery.id, "pending", 1)
    assert (again.status, again.error, again.ended_at) == (None, None, None)
    call = claimed(database, own)
    assert (call.delivery_id, call.attempt, call.body) == (delivery.id, 2, delivery.body)
    assert redeliver(database, own, delivery).is_sending  # it is on its way: left alone
    assert claim(database, own) is None
    settled = settle(database, call, DOWN)
    assert settled is not None
    assert (settled.tries, settled.state) == (1, "pending")
    redeliver(database, own, delivery)  # no need to wait for the pause
    assert claim(database, own) is not None


def test_a_delivery_is_its_webhooks(database: Database, own: Webhook) -> None:
    other = ring(database, create(database))
    with pytest.raises(NotFound):
        redeliver(database, own, other)


def test_old_ones_are_forgotten(database: Database, settings: Settings, own: Webhook) -> None:
    old, young, waiting = (ring(database, own) for _ in range(3))
    for delivery, days in ((old, 7.01), (young, 6.9)):
        with database.write() as session:
            session.execute(
                update(Delivery)
                .where(Delivery.id == delivery.id)
                .values(state="delivered", ended_at=now() - timedelta(days=days))
            )
    Retention(database, Store.of(settings), settings).look()
    assert [delivery.id for delivery in told(database)] == [young.id, waiting.id]


def test_the_longest_overdue_come_first_without_those_that_are_passed(
    any_database: Database,
) -> None:
    first, second, third = (create(any_database, owner=owner) for owner in ("ada", "bob", "cleo"))
    for webhook in (second, second, first):
        ring(any_database, webhook)
    settled = ring(any_database, third)
    with any_database.write() as session:
        session.execute(update(Delivery).where(Delivery.id == settled.id).values(state="delivered"))
    with any_database.read() as session:
        found = outbox.waiting(session, passing=(), limit=10)
        assert found == [(second.id, "bob"), (first.id, "ada")]
        assert outbox.waiting(session, passing=[second.id], limit=10) == [(first.id, "ada")]


def test_an_idle_look_is_one_look_into_an_index(database: Database, statements: list[str]) -> None:
    with database.read() as session:
        assert outbox.waiting(session, passing=(), limit=10) == []
        (asked,) = [each for each in statements if "webhook_deliveries" in each]
        plan = session.connection().exec_driver_sql(
            f"EXPLAIN QUERY PLAN {asked}", ("2026-01-01", 1, 0)
        )
        assert "INDEX ix_webhook_deliveries_due " in str(plan.all())


def test_an_owner_has_so_many(database: Database) -> None:
    for _ in range(webhooks.MAX_WEBHOOKS):
        create(database)
    with pytest.raises(TooMany, match="20 are the most"):
        create(database)
    create(database, owner="bob")


def test_no_error_of_the_database_tells_a_secret(any_database: Database, webhook: Webhook) -> None:
    with any_database.write() as session:
        session.execute(text("ALTER TABLE webhooks RENAME TO elsewhere"))
    with any_database.write() as session:
        make_transient(webhook)
        session.add(webhook)
        with pytest.raises(DBAPIError, match="INSERT INTO webhooks") as failed:
            session.flush()
        session.rollback()
    assert webhook.secret not in str(failed.value)
    assert webhook.secret not in repr(webhook)
