"""/metrics: who may look, what it tells, and what it never tells."""

import re
from collections import Counter
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from api.main import create_app
from core.config import Settings
from core.jobs import figures
from core.workers import devices
from tests.api.conftest import Person, Server
from tests.api.test_queue import begin, draw

SAMPLE = re.compile(
    r'(?P<name>[a-z_]+)(?:\{(?P<labels>(?:[a-z]+="(?:[^"\\\n]|\\.)*",?)+)\})? (?P<value>\S+)'
)


def samples(text: str) -> dict[str, float]:
    """Each line must be of the format; the value by all that stands before it."""
    told: dict[str, float] = {}
    for line in text.removesuffix("\n").split("\n"):
        if not line.startswith(("# HELP ", "# TYPE ")):
            assert SAMPLE.fullmatch(line), line
            name, _, value = line.rpartition(" ")
            assert name not in told
            told[name] = float(value)
    return told


def looked(server: Server, admin: Person) -> dict[str, float]:
    server.app.state.board._good_until = 0.0  # figures of now
    answer = admin.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return samples(answer.text)


def test_it_is_for_administrators(ann: Person, server: Server) -> None:
    assert server.http.get("/metrics").status_code == 401
    assert ann.get("/metrics").json()["code"] == "insufficient_scope"
    assert server.person("admin").get("/metrics").status_code == 200


def test_it_may_be_opened(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, metrics_open=True)
    with TestClient(create_app(settings), base_url="http://localhost") as http:
        assert http.get("/metrics").status_code == 200
        assert http.get("/v1/jobs").status_code == 401


def test_requests_are_counted_by_route(ann: Person, admin: Person, server: Server) -> None:
    route = 'method="GET",route="/v1/jobs/{job_id}"'
    before = Counter(looked(server, admin))
    for job in ("job_a", "job_b", "job_c"):
        ann.get(f"/v1/jobs/{job}")
    after = Counter(looked(server, admin))
    after.subtract(before)
    assert after[f'stillroom_http_requests_total{{{route},status="404"}}'] == 3
    assert after[f"stillroom_http_request_duration_seconds_count{{{route}}}"] == 3
    assert after[f'stillroom_http_request_duration_seconds_bucket{{le="+Inf",{route}}}'] == 3
    assert 0 < after[f"stillroom_http_request_duration_seconds_sum{{{route}}}"] < 3


def test_buckets_only_grow(admin: Person, server: Server) -> None:
    told = looked(server, admin)
    counts = [value for name, value in told.items() if 'route="/metrics"' in name and "le=" in name]
    assert len(counts) == 13
    assert counts == sorted(counts)


def test_nothing_that_a_client_writes_is_a_label(
    ann: Person, admin: Person, server: Server
) -> None:
    before = looked(server, admin)
    for number in range(50):
        ann.get(f"/nowhere/{number}")
        ann.get(f"/v1/artifacts/art_{number}/files/{number}/x")
        ann.call(f"MAKE{number}", "/v1/jobs")
        server.http.get(f"/v1/jobs/{number}")
        server.http.get("/healthz", headers={"Host": f"{number}.example"})
    draw(ann, labels={"for": "a test"}, name="private")
    after = looked(server, admin)
    assert len(set(after) - set(before)) <= 5 * 20  # series of five places at most
    told = "".join(after)
    for secret in (ann.owner, "private", "nowhere", "MAKE", "art_", "job_0", "a test"):
        assert secret not in told


def test_jobs_queue_workers_and_devices(ann: Person, admin: Person, server: Server) -> None:
    before = Counter(looked(server, admin))
    first, _second = draw(ann), draw(ann)
    draw(ann, after=first["id"])
    gone = draw(ann)
    ann.post(f"/v1/jobs/{gone['id']}/cancel")
    begin(server, first["id"])
    held = server.worker("nano-ssd-1b", device="cuda:0")
    with server.database.write() as session:
        devices.drain(session, held)
    told = looked(server, admin)
    after = Counter(told)
    after.subtract(before)
    kind = 'stillroom_jobs{kind="generate",state'
    assert after[f'{kind}="queued"}}'] == 2
    assert after[f'{kind}="running"}}'] == 1
    assert after[f'{kind}="cancelled"}}'] == 1
    assert told['stillroom_jobs{kind="distill",state="expired"}'] == 0
    assert after["stillroom_queue_depth"] == 1
    assert told["stillroom_queue_oldest_seconds"] > 0
    assert after['stillroom_workers{ready="true"}'] == 2
    assert after['stillroom_devices{state="drained"}'] == 1
    assert told["stillroom_database_up"] == 1
    assert told["stillroom_disk_free_bytes"] > 0
    with server.database.write() as session:
        devices.release(session, held)


def test_the_database_is_asked_now_and_then(
    admin: Person, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    read = figures.read

    def counted(*session: object) -> figures.Figures:
        nonlocal looks
        looks += 1
        return read(*session)  # type: ignore[arg-type]

    monkeypatch.setattr(figures, "read", counted)
    monkeypatch.setattr(figures, "GOOD_SECONDS", 3600)
    for _ in range(20):
        assert admin.get("/metrics").status_code == 200
    assert looks <= 1


def test_a_database_that_is_away_is_told() -> None:
    from core.db.engine import Database

    away = Database("postgresql+psycopg://nobody@127.0.0.1:1/none")
    board = figures.Board(away)
    assert board.figures() is None
    away.dispose()


def test_without_the_database_the_rest_is_told(
    admin: Person, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures.Board, "figures", lambda _: None)
    told = samples(admin.get("/metrics").text)
    assert told["stillroom_database_up"] == 0
    assert "stillroom_queue_depth" not in told
    assert "stillroom_disk_free_bytes" in told
