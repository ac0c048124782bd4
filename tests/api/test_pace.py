"""How often a key may ask."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from api import pace
from api.main import create_app
from api.pace import Pace
from core.config import Settings
from tests.api.conftest import Server


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_a_burst_then_a_trickle() -> None:
    clock = Clock()
    limit = Pace(per_minute=30, clock=clock)
    assert [limit.wait_seconds("ann") for _ in range(31)] == [0] * 30 + [2]
    assert limit.wait_seconds("bob") == 0, "another's bucket is another"
    clock.seconds += 1.5
    assert limit.wait_seconds("ann") == 1
    clock.seconds += 0.5
    assert [limit.wait_seconds("ann") for _ in range(2)] == [0, 2]
    clock.seconds += 3600
    assert [limit.wait_seconds("ann") for _ in range(31)] == [0] * 30 + [2]


@given(st.lists(st.floats(0, 10), min_size=1, max_size=200), st.integers(1, 100))
def test_whoever_waits_as_told_is_served(pauses: list[float], per_minute: int) -> None:
    clock = Clock()
    limit = Pace(per_minute, clock)
    for served, pause in enumerate(pauses):
        clock.seconds += pause
        wait = limit.wait_seconds("ann")
        clock.seconds += wait
        assert not wait or not limit.wait_seconds("ann")
        assert served < per_minute * (1 + clock.seconds / 60) + 1e-3


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "MAX_BUCKETS", 3)
    limit = Pace(per_minute=1)
    for name in ("ann", "bob", "cat", "ann", "dan"):
        limit.wait_seconds(name)
    assert limit.wait_seconds("ann") > 0, "used lately, remembered"
    assert limit.wait_seconds("bob") == 0, "forgotten"


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Server]:
    settings = Settings(home=tmp_path, max_requests_per_minute=3)
    client = ("127.0.0.1", 50000)
    with TestClient(create_app(settings), base_url="http://localhost", client=client) as http:
        yield Server(http, settings)


def test_a_key_that_asks_too_often_is_told_when_to_come_back(slow: Server) -> None:
    ann = slow.person("read")
    answers = [ann.get("/v1/jobs") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    refused = answers[-1]
    assert refused.json()["code"] == "too_often"
    assert refused.json()["retry_after"] == int(refused.headers["Retry-After"]) == 20
    assert "3 requests a minute" in refused.json()["detail"]
    other = slow.person("read", owner=ann.owner)
    assert other.get("/v1/jobs").status_code == 200, "each key has its own"
    assert slow.http.get("/healthz").status_code == 200


def test_what_is_refused_is_not_read(slow: Server) -> None:
    ann = slow.person("read", "write")
    dataset = ann.dataset()
    ann.get("/v1/jobs")
    ann.get("/v1/jobs")
    body = (pytest.fail("the body was read") for _ in range(1))
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    sent = ann.call("POST", f"/v1/datasets/{dataset}/images", content=body, headers=headers)
    assert sent.status_code == 429


def test_an_administrator_at_home_is_not_counted(slow: Server) -> None:
    admin = slow.person("read", "admin")
    assert {admin.get("/v1/jobs").status_code for _ in range(9)} == {200}
    away = TestClient(slow.app, base_url="http://localhost", client=("10.0.0.7", 50000))
    key = {"Authorization": f"Bearer {admin.token}"}
    assert [away.get("/v1/jobs", headers=key).status_code for _ in range(4)][-1] == 429
