"""Clients that wait: held answers, event streams, and the one feed behind them. On real sockets."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import create_engine, delete, event, text

from api import events, stream
from api.events import Feed
from core import retention
from core.db.engine import Database
from core.db.models import Event, Key
from core.jobs import service as jobs
from core.jobs.transition import record
from core.owners import service as owners
from tests.api.live import Live, free_port, serving_api
from tests.api.test_main import first_answer
from tests.support import jobs as support
from tests.support.databases import postgres_database
from tests.support.server import wait_until
from tests.support.sse import messages

STREAM = {"Accept": "text/event-stream"}
HERE = 20.0
"""Seconds that a change may take to be told, on a machine that has other things to do."""


@dataclass(frozen=True)
class House:
    """A server, a door of its own to the database behind it, and clients."""

    live: Live
    database: Database
    http: httpx.Client
    pool: ThreadPoolExecutor

    @property
    def feed(self) -> Feed:
        feed: Feed = self.live.app.state.feed
        return feed

    def ann(self, http: httpx.Client | None = None) -> "Ann":
        with self.database.write() as session:
            key, token = owners.create(
                session, owner=os.urandom(8).hex(), name="test", scopes=("read", "write")
            )
        return Ann(self, http or self.http, key.owner, key.id, token)


@dataclass(frozen=True)
class Ann:
    """Somebody with a key, who may wait in the background."""

    house: House
    http: httpx.Client
    owner: str
    key_id: str
    token: str

    def submit(self) -> str:
        live = self.house.live
        return support.submit(self.house.database, live.settings, owner=self.owner).id

    def tell(self, job_id: str, number: int = 0) -> None:
        with self.house.database.write() as session:
            record(session, job_id=job_id, event=("log", {"message": f"news {number}"}))

    def cancel(self, job_id: str) -> None:
        with self.house.database.write() as session:
            jobs.cancel(session, self.owner, job_id)

    def headers(self, **more: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} | more

    def get(self, path: str, *, tag: str | None = None, **query: Any) -> httpx.Response:
        headers = self.headers(**({"If-None-Match": tag} if tag else {}))
        return self.http.get(path, headers=headers, params=query)

    def tag(self, job_id: str) -> str:
        return self.get(f"/v1/jobs/{job_id}").headers["ETag"]

    def waits(self, job_id: str, **how: Any) -> "Future[httpx.Response]":
        """Begins to, and is known to the server to do so when this returns."""
        before = len(self.house.feed.waiters)
        answer = self.house.pool.submit(self.get, f"/v1/jobs/{job_id}", **{"wait": 30} | how)
        wait_until(
            lambda: len(self.house.feed.waiters) > before or answer.done(), HERE, "somebody waits"
        )
        return answer

    @contextmanager
    def stream(self, job_id: str, **more: Any) -> Iterator[Iterator[dict[str, str]]]:
        headers = self.headers(**STREAM | more.pop("headers", {}))
        path = f"/v1/jobs/{job_id}/events"
        with self.http.stream("GET", path, headers=headers, params=more) as answer:
            assert answer.status_code == 200
            assert answer.headers["Content-Type"].startswith("text/event-stream")
            yield messages(answer.iter_lines())

    def numbers(self, job_id: str, **more: Any) -> list[int]:
        """Of the events that a stream brings until it ends."""
        with self.stream(job_id, **more) as told:
            return [int(each["id"]) for each in told if "id" in each]


@contextmanager
def house_on(kind: str, home: Path, **settings: Any) -> Iterator[House]:
    with ExitStack() as stack:
        stack.enter_context(pytest.MonkeyPatch.context()).setattr(retention, "LOOK_SECONDS", 3600)
        if kind == "postgresql":
            url = stack.enter_context(postgres_database()).engine.url
            settings["database_url"] = url.render_as_string(hide_password=False)
        live = stack.enter_context(serving_api(home, **settings))
        database = Database.of(live.settings)
        stack.callback(database.dispose)
        pool = stack.enter_context(ThreadPoolExecutor(64))
        limits = httpx.Limits(max_connections=None)
        http = httpx.Client(base_url=live.url, trust_env=False, timeout=60, limits=limits)
        stack.enter_context(http)
        stack.callback(live.stop)  # or those who still wait would not let the pool end
        yield House(live, database, http, pool)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def house(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    home = tmp_path_factory.mktemp("home")
    with house_on(request.param, home, reap_seconds=3600) as house:
        yield house


@pytest.fixture
def ann(house: House) -> Iterator[Ann]:
    """Whoever waited in a test has left when it ends."""
    yield house.ann()
    wait_until(lambda: not house.feed.waiters, HERE, "nobody waits")
    wait_until(lambda: not house.feed.places, HERE, "no place is taken")


# A tag for what one has seen


def test_a_job_that_is_known_is_not_sent_again(ann: Ann) -> None:
    job = ann.submit()
    first = ann.get(f"/v1/jobs/{job}")
    tag = first.headers["ETag"]
    assert (tag[0], tag[-1]) == ('"', '"')
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = ann.get(f"/v1/jobs/{job}", tag=known)
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["ETag"] == tag
        assert again.headers["Cache-Control"] == "no-store"
    ann.cancel(job)
    moved = ann.get(f"/v1/jobs/{job}", tag=tag)
    assert (moved.status_code, moved.json()["state"]) == (200, "cancelled")
    assert moved.headers["ETag"] != tag


def test_tags_of_two_jobs_differ(ann: Ann) -> None:
    assert ann.tag(ann.submit()) != ann.tag(ann.submit())


# An answer that is held


def test_what_has_ended_is_not_waited_for(ann: Ann) -> None:
    job = ann.submit()
    ann.cancel(job)
    began = time.monotonic()
    assert ann.get(f"/v1/jobs/{job}", wait=30).json()["state"] == "cancelled"
    assert ann.get(f"/v1/jobs/{job}", wait=30, tag=ann.tag(job)).status_code == 304
    assert time.monotonic() - began < HERE


@pytest.mark.parametrize("wait", ["31", "-1", "nan", "inf", "x", ""])
def test_seconds_that_nobody_waits(wait: str, ann: Ann) -> None:
    refused = ann.get(f"/v1/jobs/{ann.submit()}", wait=wait)
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/wait")


def test_no_seconds_are_none(ann: Ann) -> None:
    assert ann.get(f"/v1/jobs/{ann.submit()}", wait=0).json()["state"] == "queued"


def test_a_change_is_told_at_once(ann: Ann) -> None:
    job = ann.submit()
    waiting = ann.waits(job, tag=ann.tag(job))
    ann.tell(job)
    told = time.monotonic()
    answer = waiting.result()
    assert time.monotonic() - told < HERE
    assert answer.status_code == 200
    assert answer.json() == ann.get(f"/v1/jobs/{job}").json() | {"usage": answer.json()["usage"]}
    assert answer.headers["ETag"] == ann.tag(job)


def test_one_who_knows_less_is_told_without_waiting(ann: Ann) -> None:
    job = ann.submit()
    began = time.monotonic()
    assert ann.get(f"/v1/jobs/{job}", tag='"other"', wait=30).status_code == 200
    assert time.monotonic() - began < HERE


def test_without_a_change_the_answer_is_304_after_that_time(ann: Ann) -> None:
    job = ann.submit()
    tag, began = ann.tag(job), time.monotonic()
    answer = ann.get(f"/v1/jobs/{job}", tag=tag, wait=1.2)
    assert 1.2 <= time.monotonic() - began < 1.2 + HERE
    assert (answer.status_code, answer.headers["ETag"]) == (304, tag)


def test_without_a_tag_the_end_is_waited_for(ann: Ann) -> None:
    job = ann.submit()
    waiting = ann.waits(job)
    ann.tell(job)
    time.sleep(0.5)
    assert not waiting.done()
    ann.cancel(job)
    answer = waiting.result(HERE)
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    assert ann.get(f"/v1/jobs/{job}", wait=30).json()["state"] == "cancelled"


def test_an_end_that_does_not_come_is_waited_for_so_long(ann: Ann) -> None:
    job = ann.submit()
    began = time.monotonic()
    waiting = ann.waits(job, wait=1)
    ann.tell(job)
    answer = waiting.result()
    assert 1 <= time.monotonic() - began < 1 + HERE
    assert (answer.status_code, answer.headers["ETag"]) == (200, ann.tag(job))


def test_only_the_owner_waits(house: House, ann: Ann) -> None:
    job = ann.submit()
    bob = house.ann()
    assert bob.get(f"/v1/jobs/{job}", wait=30).status_code == 404
    assert bob.get(f"/v1/jobs/{job}", wait=30, tag=ann.tag(job)).status_code == 404
    path = f"/v1/jobs/{job}/events"
    assert bob.http.get(path, headers=bob.headers(**STREAM)).status_code == 404
    assert bob.get("/v1/jobs/job_nothing", wait=30).status_code == 404


# Prefer


def post(ann: Ann, *prefer: str) -> httpx.Response:
    headers = [*ann.headers().items(), *(("Prefer", each) for each in prefer)]
    body = {"kind": "generate", "spec": support.SPEC}
    return ann.http.post("/v1/jobs", json=body, headers=headers)


def test_a_submission_may_prefer_to_wait_for_the_end(house: House, ann: Ann) -> None:
    waiting = house.pool.submit(post, ann, "wait=30")
    wait_until(lambda: bool(house.feed.waiters), HERE, "the submission waits")
    (job,) = ann.get("/v1/jobs").json()["items"]
    ann.cancel(job["id"])
    answer = waiting.result(HERE)
    assert (answer.status_code, answer.json()["state"]) == (201, "cancelled")
    assert answer.headers["Preference-Applied"] == "wait=30"
    assert answer.headers["Location"] == f"/v1/jobs/{job['id']}"


def test_a_submission_waits_no_longer_than_it_said(ann: Ann) -> None:
    began = time.monotonic()
    answer = post(ann, "respond-async, wait=1")
    assert 1 <= time.monotonic() - began < 1 + HERE
    assert (answer.status_code, answer.json()["state"]) == (201, "queued")
    assert answer.headers["Preference-Applied"] == "wait=1"


@pytest.mark.parametrize("prefer", ["wait=soon", "respond-async", "wait", "wait=0", "=,;"])
def test_preferences_that_cannot_be_met_are_passed_over(prefer: str, ann: Ann) -> None:
    began = time.monotonic()
    answer = post(ann, prefer)
    assert time.monotonic() - began < HERE
    assert answer.status_code == 201
    assert "Preference-Applied" not in answer.headers


# Streams


def test_a_stream_brings_what_the_list_holds_and_ends_with_the_job(ann: Ann) -> None:
    job = ann.submit()
    with ann.stream(job) as told:
        first = next(told)
        ann.tell(job)
        second = next(told)
        ann.cancel(job)
        rest = list(told)
    listed = ann.get(f"/v1/jobs/{job}/events").json()["items"]
    assert [json.loads(each["data"]) for each in (first, second, *rest)] == listed
    assert [(each["id"], each["event"]) for each in (first, second, *rest)] == [
        *(("1", "state"), ("2", "log"), ("3", "state")),
    ]


def test_a_stream_of_an_ended_job_ends(ann: Ann) -> None:
    job = ann.submit()
    ann.tell(job)
    ann.cancel(job)
    assert ann.numbers(job) == [1, 2, 3]
    assert ann.numbers(job, after=2) == [3]
    assert ann.numbers(job, after=3) == []
    assert ann.numbers(job, after=300) == []


def test_a_stream_goes_on_after_the_last_event(ann: Ann) -> None:
    job = ann.submit()
    for number in range(3):
        ann.tell(job, number)
    ann.cancel(job)
    assert ann.numbers(job, headers={"Last-Event-ID": "3"}) == [4, 5]
    assert ann.numbers(job, headers={"Last-Event-ID": "4"}, after=1) == [5]
    refused = ann.http.get(
        f"/v1/jobs/{job}/events", headers=ann.headers(**STREAM, **{"Last-Event-ID": "x"})
    )
    assert refused.status_code == 422
    (wrong,) = refused.json()["errors"]
    assert wrong["pointer"].lower() == "/last-event-id"
    assert wrong["detail"].lower().startswith('`last-event-id` is "x"')


def test_many_events_come_page_after_page(ann: Ann, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "PAGE", 7)
    job = ann.submit()
    for number in range(20):
        ann.tell(job, number)
    ann.cancel(job)
    assert ann.numbers(job) == list(range(1, 23))


def test_one_who_is_far_behind_reads_by_himself(
    house: House, ann: Ann, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "PAGE", 3)
    job = ann.submit()
    reading = house.pool.submit(ann.numbers, job)
    wait_until(lambda: bool(house.feed.waiters), HERE, "the stream waits")
    with house.database.write() as session:
        for _ in range(10):
            record(session, job_id=job, event=("log", {"message": "at once"}))
        jobs.cancel(session, ann.owner, job)
    assert reading.result(HERE) == list(range(1, 13))


def test_readers_who_come_and_go_miss_nothing_and_see_nothing_twice(house: House, ann: Ann) -> None:
    job, last = ann.submit(), 150

    def write() -> None:
        for number in range(last - 2):
            ann.tell(job, number)
            time.sleep(0.01)
        ann.cancel(job)

    def read(pieces: int) -> list[int]:
        seen: list[int] = []
        while not seen or seen[-1] < last:
            resume = {"Last-Event-ID": str(seen[-1])} if seen else {}
            with ann.stream(job, headers=resume) as told:
                for taken, each in enumerate(told, start=1):
                    seen.append(int(each["id"]))
                    if taken == pieces:
                        break
        return seen

    writer = house.pool.submit(write)
    readers = [house.pool.submit(read, pieces) for pieces in (1, 2, 5, 17, 1000)]
    writer.result()
    assert all(reader.result() == list(range(1, last + 1)) for reader in readers)


def test_a_silent_stream_is_kept_alive(ann: Ann, monkeypatch: pytest.MonkeyPatch) -> None:
    assert stream.PING_SECONDS == 15
    monkeypatch.setattr(stream, "PING_SECONDS", 0.1)
    job = ann.submit()
    with ann.stream(job) as told:
        assert "id" in next(told)
        assert "comment" in next(told)
        ann.cancel(job)
        assert any(each.get("event") == "state" for each in told)


def test_who_does_not_listen_is_not_spoken_to_for_ever(
    house: House, ann: Ann, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "SEND_SECONDS", 0.3)
    job = ann.submit()
    for _ in range(8):
        with house.database.write() as session:
            record(session, job_id=job, event=("log", {"message": "x" * 2_000_000}))
    with ann.stream(job):
        wait_until(lambda: bool(house.feed.places), HERE, "the stream has begun")
        wait_until(lambda: not house.feed.places, 2 * HERE, "its place is free")


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("text/event-stream", "text/event-stream"),
        ("text/event-stream, application/json;q=0.5", "text/event-stream"),
        ("Text/Event-Stream; charset=utf-8", "text/event-stream"),
        ("application/json, text/event-stream", "application/json"),
        ("text/html, */*;q=0.8", "application/json"),
        ("*/*", "application/json"),
        ("image/png", "application/problem+json"),
    ],
)
def test_the_form_is_the_one_that_was_asked_for(accept: str, kind: str, ann: Ann) -> None:
    job = ann.submit()
    ann.cancel(job)
    answer = ann.http.get(f"/v1/jobs/{job}/events", headers=ann.headers(Accept=accept))
    assert answer.headers["Content-Type"].partition(";")[0] == kind
    assert answer.status_code == (406 if "problem" in kind else 200)


def test_a_stream_of_a_deleted_job_ends(house: House, ann: Ann) -> None:
    job = ann.submit()
    with ann.stream(job) as told:
        next(told)
        with house.database.write() as session:
            session.execute(delete(Event).where(Event.job_id == job))
            session.delete(jobs.get(session, ann.owner, job))
        assert list(told) == []
    assert ann.get(f"/v1/jobs/{job}").status_code == 404


def test_who_loses_the_key_waits_no_more(
    house: House, ann: Ann, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert events.KEYS_SECONDS <= 5
    monkeypatch.setattr(events, "KEYS_SECONDS", 0.3)
    time.sleep(0.1)
    job, other = ann.submit(), house.ann()
    theirs = other.submit()
    waiting = ann.waits(job)
    reading = other.waits(theirs)
    with ann.stream(job) as told:
        next(told)
        with house.database.write() as session:
            session.execute(delete(Key).where(Key.id == ann.key_id))
        assert list(told) == []
    answer = waiting.result(HERE)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert not reading.done()
    other.cancel(theirs)
    assert reading.result(HERE).status_code == 200


# The feed


@contextmanager
def counting(house: House) -> Iterator[list[str]]:
    """The questions of the server, as they come, but for what webhooks are to be told: that is
    looked for whether anybody waits or not."""
    said: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.lstrip().startswith("SELECT") and "webhook_deliveries" not in statement:
            said.append(statement)

    engine = house.live.app.state.database.engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield said
    finally:
        event.remove(engine, "before_cursor_execute", note)


def test_fifty_who_wait_cost_as_much_as_one(house: House, ann: Ann) -> None:
    job = ann.submit()
    tag = ann.tag(job)
    waiting = [ann.waits(job, tag=tag) for _ in range(25)]
    reading = [house.pool.submit(ann.numbers, job) for _ in range(25)]
    wait_until(lambda: len(house.feed.waiters) == 50, HERE, "fifty wait")
    time.sleep(0.3)  # each was looked at once
    with counting(house) as said:
        began = time.monotonic()
        time.sleep(1.0)
        quiet = len(said)
        ticks = (time.monotonic() - began) / events.TICK_SECONDS
        assert quiet <= ticks + 2, said  # and the look at their keys
        began = time.monotonic()
        ann.tell(job)
        assert all(answer.result(HERE).status_code == 200 for answer in waiting)
        time.sleep(0.5)
        ticks = (time.monotonic() - began) / events.TICK_SECONDS
        assert len(said) - quiet <= ticks + 7, said[quiet:]  # and its place in the queue
    ann.cancel(job)
    assert all(numbers.result(HERE) == [1, 2, 3] for numbers in reading)


def test_nobody_who_waits_costs_nothing(house: House, ann: Ann) -> None:
    ann.cancel(ann.submit())
    time.sleep(0.3)
    with counting(house) as said:
        time.sleep(0.6)
    assert said == []


def test_many_jobs_are_looked_at_in_pieces(
    house: House, ann: Ann, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_AT_ONCE", 4)
    every = [ann.submit() for _ in range(10)]
    reading = [house.pool.submit(ann.numbers, job) for job in every]
    waiting = [ann.waits(job) for job in every]
    for job in every:
        ann.tell(job)
        ann.cancel(job)
    assert all(numbers.result(HERE) == [1, 2, 3] for numbers in reading)
    assert all(answer.result(HERE).json()["state"] == "cancelled" for answer in waiting)


def test_who_waits_holds_no_thread(house: House, ann: Ann) -> None:
    job = ann.submit()
    tag = ann.tag(job)
    waiting = [ann.waits(job, tag=tag) for _ in range(60)]
    began = time.monotonic()
    assert ann.get("/v1/jobs").status_code == 200
    assert time.monotonic() - began < HERE
    ann.cancel(job)
    assert all(answer.result(HERE).status_code == 200 for answer in waiting)


@pytest.mark.parametrize("path", ["?wait=30", "/events"])
def test_who_leaves_is_not_waited_for(path: str, house: House, ann: Ann) -> None:
    job = ann.submit()
    address, headers = f"/v1/jobs/{job}{path}", ann.headers(**STREAM)
    with pytest.raises(httpx.ReadTimeout):
        ann.http.get(address, headers=headers, timeout=0.5)
    wait_until(lambda: not house.feed.places, HERE, "no place is taken")
    assert not house.feed.waiters


def test_one_who_takes_every_place_leaves_some_to_others(tmp_path: Path) -> None:
    with house_on("sqlite", tmp_path, max_waiting=4) as house:
        ann, bob = house.ann(), house.ann()
        job, his = ann.submit(), bob.submit()
        waiting = [ann.waits(job) for _ in range(3)]
        refused = ann.get(f"/v1/jobs/{job}", wait=5)
        assert (refused.status_code, refused.json()["code"]) == (503, "too_many_waiting")
        waiting.append(bob.waits(his))
        ann.cancel(job)
        bob.cancel(his)
        assert [each.result(HERE).status_code for each in waiting] == [200] * 4


def test_no_more_wait_than_may(tmp_path: Path) -> None:
    with house_on("sqlite", tmp_path, max_waiting=2) as house:
        ann = house.ann()
        job = ann.submit()
        waiting = ann.waits(job)
        with ann.stream(job) as told:
            next(told)
            path = f"/v1/jobs/{job}/events"
            for refused in (
                ann.get(f"/v1/jobs/{job}", wait=5),
                ann.get(f"/v1/jobs/{job}", wait=5, tag=ann.tag(job)),
                ann.http.get(path, headers=ann.headers(**STREAM)),
            ):
                assert (refused.status_code, refused.json()["code"]) == (503, "too_many_waiting")
                assert refused.headers["Retry-After"] == "5"
            assert ann.get(f"/v1/jobs/{job}").status_code == 200
            assert post(ann, "wait=30").status_code == 201  # queued is queued
            ann.cancel(job)
            list(told)
        assert waiting.result(HERE).status_code == 200
        wait_until(lambda: not house.feed.places, HERE, "the places are free again")
        assert ann.numbers(job) == [1, 2]


@contextmanager
def away(house: House) -> Iterator[None]:
    """The database refuses everybody."""
    if house.database.engine.dialect.name == "sqlite":
        with house.database.write() as session:
            session.execute(text("ALTER TABLE jobs RENAME TO elsewhere"))
        yield
        with house.database.write() as session:
            session.execute(text("ALTER TABLE elsewhere RENAME TO jobs"))
        return
    url = house.database.engine.url
    outside = create_engine(url.set(database="postgres"), isolation_level="AUTOCOMMIT")
    with outside.connect() as connection:
        connection.execute(text(f"ALTER DATABASE {url.database} ALLOW_CONNECTIONS false"))
        connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"),
            {"name": url.database},
        )
        yield
        connection.execute(text(f"ALTER DATABASE {url.database} ALLOW_CONNECTIONS true"))
    outside.dispose()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_database_that_is_away_is_waited_for(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with house_on(kind, tmp_path, reap_seconds=3600) as house:
        ann = house.ann()
        job = ann.submit()
        waiting = ann.waits(job, tag=ann.tag(job))
        reading = house.pool.submit(ann.numbers, job)
        wait_until(lambda: len(house.feed.waiters) == 2, HERE, "two wait")
        with away(house):
            time.sleep(1.0)
            assert ann.get(f"/v1/jobs/{job}", wait=30).status_code == 503
            assert not waiting.done()
            assert not reading.done()
        told = [each for each in caplog.records if "the feed cannot look" in each.getMessage()]
        assert len(told) == 1
        ann.tell(job)
        assert waiting.result(HERE).status_code == 200
        ann.cancel(job)
        assert reading.result(HERE) == [1, 2, 3]


def test_a_server_that_ends_keeps_nobody_waiting(tmp_path: Path) -> None:
    with house_on("sqlite", tmp_path) as house:
        ann = house.ann()
        job = ann.submit()
        tag = ann.tag(job)
        waiting = [ann.waits(job), ann.waits(job, tag=tag), house.pool.submit(post, ann, "wait=30")]
        reading = [house.pool.submit(ann.numbers, job) for _ in range(5)]
        wait_until(lambda: len(house.feed.waiters) == 8, HERE, "eight wait")
        began = time.monotonic()
        house.live.stop()
        assert time.monotonic() - began < HERE, "they had asked for 30"
        assert [answer.result(HERE).status_code for answer in waiting] == [200, 304, 201]
        assert all(numbers.result(HERE) == [1] for numbers in reading)


def test_sigterm_ends_a_process_with_open_streams(tmp_path: Path) -> None:
    port = free_port()
    environment = os.environ | {"STILLROOM_HOME": str(tmp_path), "STILLROOM_PORT": str(port)}
    process = subprocess.Popen(
        [sys.executable, "-m", "api"], env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        url = f"http://127.0.0.1:{port}"
        first_answer(f"{url}/healthz")
        key = (tmp_path / "admin.key").read_text().strip()
        with (
            httpx.Client(base_url=url, trust_env=False, timeout=30) as http,
            ThreadPoolExecutor(1) as pool,
        ):
            http.headers["Authorization"] = f"Bearer {key}"
            body = {"kind": "generate", "spec": support.SPEC}
            path = http.post("/v1/jobs", json=body).headers["Location"]
            holding = pool.submit(http.get, path, params={"wait": 30})
            with http.stream("GET", f"{path}/events", headers=STREAM) as answer:
                told = messages(answer.iter_lines())
                assert next(told)["id"] == "1"
                process.send_signal(signal.SIGTERM)
                assert list(told) == []
                assert holding.result().status_code == 200
        _, log = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert all(json.loads(line)["level"] in ("info", "debug") for line in log.splitlines())
