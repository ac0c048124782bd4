"""What the API takes beside a bare FastAPI and SQLAlchemy; what those cost who wait; its memory.

Clients and server share the machine's cores, so requests a second flatter the slower server. The
processor time that a server takes for a request does not.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import pytest
from sqlalchemy import event

from api.client import Client
from core.db.engine import Database
from core.jobs.transition import record
from core.owners import service as owners
from tests.api.live import free_port, serving_api
from tests.support import jobs as support
from tests.support.databases import postgres_database
from tests.support.server import wait_until
from tests.support.sse import messages

pytestmark = pytest.mark.bench

THREADS = 8
SECONDS = 1.5
ROUNDS = 6
"""The two take turns, so that whatever else the machine does is done to both; medians count."""
WATCHERS = 200
MAX_STATEMENTS_A_TICK = 2.0
MAX_GROWTH = 0.05
MIN_SHARES = {"submit": 0.4, "poll": 0.45}
"""Of the bare API's requests a second."""
BODY = {"kind": "generate", "spec": support.SPEC}
DATABASES = pytest.mark.parametrize("kind", ["sqlite", "postgresql"])


@dataclass(frozen=True)
class Process:
    """A server of its own process."""

    url: str
    pid: int

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self) -> int:
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def process(*command: str, port: int, ready: str, **environment: str) -> Iterator[Process]:
    running = subprocess.Popen(
        [sys.executable, "-m", *command],
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: _answers(f"{url}{ready}"), 30, f"{command[0]} answers")
        yield Process(url, running.pid)
    finally:
        running.terminate()
        running.wait(20)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).status_code < 500
    except httpx.TransportError:
        return False


@contextmanager
def database_url(kind: str, folder: Path) -> Iterator[str]:
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'load.db'}"
        return
    with postgres_database() as database:
        yield database.engine.url.render_as_string(hide_password=False)


@contextmanager
def our_api(kind: str, folder: Path) -> Iterator[Process]:
    port = free_port()
    with database_url(kind, folder) as url:
        environment = {
            "STILLROOM_HOME": str(folder / "home"),
            "STILLROOM_PORT": str(port),
            "STILLROOM_DATABASE_URL": url,
            "STILLROOM_MAX_QUEUED_JOBS": "1000000",
        }
        with process("api", port=port, ready="/healthz", **environment) as running:
            yield running


@contextmanager
def bare_api(kind: str, folder: Path) -> Iterator[Process]:
    port = free_port()
    with (
        database_url(kind, folder) as url,
        process("tests.bench.bare_api", url, str(port), port=port, ready="/docs") as running,
    ):
        yield running


def keys_of(folder: Path, url: str) -> list[str]:
    """Of an owner for each thread."""
    with Client(url, (folder / "home" / "admin.key").read_text().strip()) as admin:
        return [admin.create_key("load", owner=f"owner {n}")["key"] for n in range(THREADS)]


@dataclass(frozen=True)
class Pace:
    a_second: float
    cpu_ms: float
    """Of the server, for one request."""


@dataclass(frozen=True)
class Load:
    """So many threads, each with a connection that it keeps."""

    server: Process
    clients: list[httpx.Client]

    def measure(self, request: Callable[[httpx.Client], httpx.Response]) -> Pace:
        def work(client: httpx.Client) -> int:
            done = 0
            while time.monotonic() < until:
                assert request(client).is_success
                done += 1
            return done

        with ThreadPoolExecutor(THREADS) as pool:
            began, cpu = time.monotonic(), self.server.cpu_seconds()
            until = began + SECONDS
            done = sum(pool.map(work, self.clients))
            seconds, cpu = time.monotonic() - began, self.server.cpu_seconds() - cpu
        return Pace(done / seconds, 1000 * cpu / done)


@contextmanager
def load(server: Process, keys: list[str]) -> Iterator[Load]:
    with ExitStack() as stack:
        clients = [
            stack.enter_context(
                httpx.Client(
                    base_url=server.url,
                    headers={"Authorization": f"Bearer {key}"},
                    trust_env=False,
                    timeout=30,
                )
            )
            for key in keys
        ]
        yield Load(server, clients)


@dataclass
class Side:
    """One of the two servers, with what was submitted to it."""

    load: Load
    path: str
    body: dict[str, Any]
    made: dict[httpx.Client, list[str]] = field(default_factory=dict)

    def submit(self, client: httpx.Client) -> httpx.Response:
        answer = client.post(self.path, json=self.body)
        self.made.setdefault(client, []).append(answer.json()["id"])
        return answer

    def poll(self, client: httpx.Client) -> httpx.Response:
        """One of the last twenty, in turn."""
        ids = self.made[client]
        ids.append(ids.pop(-20 if len(ids) > 20 else 0))
        return client.get(f"{self.path}/{ids[-1]}")

    def pace(self, what: str) -> Pace:
        return self.load.measure(self.submit if what == "submit" else self.poll)


@DATABASES
def test_requests_a_second(kind: str, tmp_path: Path, tell: Callable[[str], None]) -> None:
    (tmp_path / "bare").mkdir()
    with (
        bare_api(kind, tmp_path / "bare") as plain,
        our_api(kind, tmp_path) as server,
        load(plain, ["none"] * THREADS) as plain_load,
        load(server, keys_of(tmp_path, server.url)) as server_load,
    ):
        bare = Side(plain_load, "/rows", {"document": support.SPEC})
        ours = Side(server_load, "/v1/jobs", BODY)
        for what, least in MIN_SHARES.items():
            rounds = [(ours.pace(what), bare.pace(what)) for _ in range(ROUNDS)][1:]
            share = median(our.a_second / its.a_second for our, its in rounds)
            times = median(our.cpu_ms / its.cpu_ms for our, its in rounds)
            our, its = rounds[-1]
            tell(
                f"{kind} {what}: {share:.2f} of a bare API's requests a second ({our.a_second:.0f} "
                f"to {its.a_second:.0f} at last), {times:.1f} times its processor time "
                f"({our.cpu_ms:.1f} ms to {its.cpu_ms:.1f} ms)"
            )
            assert share >= least


@contextmanager
def counted(database: Database) -> Iterator[list[str]]:
    """The statements that this process sends, as they come."""
    said: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        said.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        yield said
    finally:
        event.remove(database.engine, "before_cursor_execute", note)


def streamed(http: httpx.Client, path: str) -> int:
    """How many events came until the job's end."""
    with http.stream("GET", f"{path}/events", headers={"Accept": "text/event-stream"}) as answer:
        return sum("id" in each for each in messages(answer.iter_lines()))


def held(http: httpx.Client, path: str) -> int:
    """How many changes were told: one."""
    tag = http.get(path).headers["ETag"]
    answer = http.get(path, params={"wait": 30}, headers={"If-None-Match": tag})
    return int(answer.status_code == 200)


@DATABASES
@pytest.mark.parametrize(("watch", "moves", "seen"), [(streamed, 12, 15), (held, 1, 1)])
def test_two_hundred_who_wait_for_one_job(
    watch: Callable[[httpx.Client, str], int],
    moves: int,
    seen: int,
    kind: str,
    tmp_path: Path,
    tell: Callable[[str], None],
) -> None:
    """A job that runs. Something happens to it twice a second, or once after six."""
    with ExitStack() as stack:
        url = stack.enter_context(database_url(kind, tmp_path))
        live = stack.enter_context(
            serving_api(tmp_path / "home", database_url=url, reap_seconds=3600)
        )
        feed, database = live.app.state.feed, Database.of(live.settings)
        stack.callback(database.dispose)
        support.submit(database, live.settings, owner=owners.ADMIN)
        job = support.take(database, support.register(database, live.settings))
        http = stack.enter_context(patient(live.url, live.key))
        pool = stack.enter_context(ThreadPoolExecutor(WATCHERS))
        stack.callback(live.stop)  # or those who still wait would not let the pool end
        watching = [pool.submit(watch, http, f"/v1/jobs/{job.id}") for _ in range(WATCHERS)]
        wait_until(lambda: len(feed.waiters) == WATCHERS, 60, "all of them wait")
        with counted(live.app.state.database) as said:
            began = time.monotonic()
            for number in range(moves):
                time.sleep(6.0 / moves)
                with database.write() as session:
                    record(session, job_id=job.id, event=("log", {"message": f"news {number}"}))
            time.sleep(0.5)
            ticks = (time.monotonic() - began) / feed.tick_seconds
            a_tick = len(said) / ticks
        support.succeed(database, job)
        assert {each.result(60) for each in watching} == {seen}
    tell(
        f"{kind}, {WATCHERS} {watch.__name__}: {len(said)} statements in {ticks:.0f} ticks, "
        f"{a_tick:.2f} a tick"
    )
    assert a_tick <= MAX_STATEMENTS_A_TICK


def patient(url: str, key: str) -> httpx.Client:
    return httpx.Client(
        base_url=url,
        headers={"Authorization": f"Bearer {key}"},
        trust_env=False,
        timeout=60,
        limits=httpx.Limits(max_connections=None),
    )


def mix(client: httpx.Client) -> None:
    """Ten requests, of which one submits."""
    job = client.post("/v1/jobs", json=BODY).json()["id"]
    assert client.post("/v1/jobs", json={"kind": "generate"}).status_code == 422
    for _ in range(4):
        assert client.get(f"/v1/jobs/{job}").status_code == 200
    assert client.get("/v1/jobs", params={"limit": 20}).status_code == 200
    assert client.get("/v1/jobs/job_nothing").status_code == 404
    assert client.get(f"/v1/jobs/{job}/events").status_code == 200
    assert client.post(f"/v1/jobs/{job}/cancel").status_code == 202


@DATABASES
def test_memory_stays_as_it_was(kind: str, tmp_path: Path, tell: Callable[[str], None]) -> None:
    def work(server: Process, clients: list[httpx.Client], requests: int) -> int:
        with ThreadPoolExecutor(THREADS) as pool:
            turns = requests // 10
            list(pool.map(mix, (clients[n % THREADS] for n in range(turns))))
        return server.resident_bytes()

    with (
        our_api(kind, tmp_path) as server,
        load(server, keys_of(tmp_path, server.url)) as loaded,
    ):
        early = work(server, loaded.clients, 2_000)
        late = work(server, loaded.clients, 8_000)
    growth = late / early - 1
    tell(
        f"{kind}: the API holds {early / 1e6:.0f} MB after 2,000 requests and {late / 1e6:.0f} MB "
        f"after 10,000, {growth:+.1%}"
    )
    assert growth < MAX_GROWTH
