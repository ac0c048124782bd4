"""Clients that keep the server waiting: real sockets, with a patience of two seconds."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from api import connection
from api.tally import Tally
from core.artifacts import service as artifacts
from core.artifacts.service import StoredFile
from core.config import MIB
from core.ids import new_id
from core.owners.service import ADMIN
from tests.api.live import Live, serving_api
from tests.support.server import wait_until

PATIENCE_SECONDS = 2.0
HERE = 20.0
LARGE_BYTES = 24 * MIB
HEAD = "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "PATIENCE_SECONDS", PATIENCE_SECONDS)
        with serving_api(tmp_path_factory.mktemp("home") / "home") as live:
            yield live


def connected(live: Live, sent: str = "", *, window: int | None = None) -> socket.socket:
    client = socket.socket()
    if window:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    client.settimeout(HERE)
    client.connect(("127.0.0.1", live.settings.port))
    client.sendall(sent.encode())
    return client


def head(live: Live, method: str, path: str, *more: str) -> str:
    lines = "".join(f"{line}\r\n" for line in more)
    return HEAD.format(method=method, path=path, key=live.key) + lines


def is_cut(client: socket.socket, drop: str = "") -> bool:
    """Whether the server ends it, though the client goes on with ``drop`` after ``drop``."""
    client.settimeout(PATIENCE_SECONDS / 4)
    for _ in range(100):
        try:
            client.sendall(drop.encode())
            if not client.recv(65536):
                return True
        except TimeoutError:
            pass
        except OSError:
            return True
    return False


def test_who_says_nothing_is_cut(live: Live) -> None:
    with connected(live) as client:
        assert is_cut(client)


def test_a_head_that_comes_drop_by_drop_is_none(live: Live) -> None:
    with connected(live, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ") as client:
        assert is_cut(client, "x")


def test_what_comes_after_a_refusal_keeps_nothing_open(live: Live) -> None:
    body = "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
    with connected(live, body) as client:
        assert client.recv(65536).startswith(b"HTTP/1.1 401")
        assert is_cut(client, "x")


def test_a_body_that_stops_is_not_waited_for(live: Live) -> None:
    sent = head(live, "POST", "/v1/datasets", "Content-Type: application/json", "Content-Length: 9")
    with connected(live, f"{sent}\r\n{{") as client:
        assert is_cut(client)


def test_a_slow_body_is_waited_for(live: Live) -> None:
    body = '{"name": "slow", "kind": "instance"}'
    more = ("Content-Type: application/json", f"Content-Length: {len(body)}")
    with connected(live, head(live, "POST", "/v1/datasets", *more) + "\r\n") as client:
        client.settimeout(PATIENCE_SECONDS / 4)
        for character in body[:6]:
            client.sendall(character.encode())
            with pytest.raises(TimeoutError):
                client.recv(1)
        client.settimeout(HERE)
        client.sendall(body[6:].encode())
        assert client.recv(65536).startswith(b"HTTP/1.1 201")


def test_who_waits_for_us_is_not_cut(live: Live) -> None:
    headers = {"Authorization": f"Bearer {live.key}"}
    with httpx.Client(base_url=live.url, headers=headers, trust_env=False) as client:
        spec = {"base": "nano-ssd-1b", "prompt": "a dog"}
        job = client.post("/v1/jobs", json={"kind": "generate", "spec": spec}).json()
        assert client.get(f"/v1/jobs/{job['id']}?wait=3").json()["state"] == "queued"


def test_who_does_not_take_an_answer_is_cut(live: Live) -> None:
    path = f"/v1/artifacts/{large_artifact(live)}/content"
    with connected(live, head(live, "GET", path) + "\r\n", window=4096):
        wait_until(lambda: downloads(live) == 1, HERE, "the download is over")


def test_who_takes_it_slowly_is_not(live: Live) -> None:
    path = f"/v1/artifacts/{large_artifact(live)}/content"
    taken = 0
    with connected(live, head(live, "GET", path) + "\r\n", window=64 * 1024) as client:
        while piece := client.recv(MIB):
            taken += len(piece)
            if taken >= LARGE_BYTES:
                break
            time.sleep(PATIENCE_SECONDS / 400)
    assert taken >= LARGE_BYTES


def test_strangers_leave_descriptors_for_the_work(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "max_connections", lambda: 4)
    with ExitStack() as stack:
        for _ in range(12):
            stack.enter_context(connected(live))
        with connected(live) as late:
            assert is_cut(late)


def large_artifact(live: Live) -> str:
    """Of zeros, and more than the sockets' own buffers hold."""
    database, store = live.app.state.database, live.app.state.store
    key = f"artifacts/{new_id('art')}/large"
    store.put_bytes(key, bytes(LARGE_BYTES))
    file = StoredFile("large.bin", LARGE_BYTES, "0" * 64, key)
    with database.write() as session:
        return artifacts.record(
            session,
            owner=ADMIN,
            job_id=None,
            kind="lora",
            role="lora",
            name="large",
            format="peft",
            files=[file],
        ).id


def downloads(live: Live) -> float | None:
    """That are over, however they ended."""
    route = {"route": "/v1/artifacts/{artifact_id}/content", "method": "GET", "status": "200"}
    tally: Tally = live.app.state.tally
    return tally.registry.get_sample_value("stillroom_http_requests_total", route)
