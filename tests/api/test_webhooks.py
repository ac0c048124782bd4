"""/v1/webhooks as a client meets it, and a job that tells one."""

import os
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.client import Client, NoAnswer
from api.main import create_app
from core.config import Settings
from core.db.engine import Database
from core.owners import service as owners
from core.webhooks import deliverer
from tests.api.conftest import Person, Server
from tests.api.live import free_port
from tests.api.test_queue import DRAWING
from tests.support.receiver import Receiver, receiving
from tests.support.server import wait_until
from tests.support.webhooks import deliver, pass_time, told

URL = "https://hooks.example/hook"
ENDED = ["job.succeeded", "job.failed"]


def create(person: Person, url: str = URL, **body: Any) -> dict[str, Any]:
    made = person.post("/v1/webhooks", {"url": url, "events": ENDED} | body)
    assert made.status_code == 201, made.text
    document: dict[str, Any] = made.json()
    return document


def test_it_is_made_and_its_secret_shown_once(ann: Person) -> None:
    body = {"url": URL, "events": ["job.failed", "job.queued", "job.failed"], "name": "shop"}
    made = ann.post("/v1/webhooks", body)
    webhook = made.json()
    assert (made.status_code, made.headers["Location"]) == (201, f"/v1/webhooks/{webhook['id']}")
    assert made.headers["Cache-Control"] == "no-store"
    secret = webhook.pop("secret")
    assert secret.startswith("whsec_")
    assert len(b64decode(secret.removeprefix("whsec_"), validate=True)) == 32
    assert webhook == {
        "id": webhook["id"],
        "url": URL,
        "name": "shop",
        "events": ["job.queued", "job.failed"],
        "created_at": webhook["created_at"],
        "last_delivery": None,
    }
    assert webhook["id"].startswith("whk_")
    assert ann.get(f"/v1/webhooks/{webhook['id']}").json() == webhook
    assert ann.get("/v1/webhooks").json() == {"items": [webhook], "next_cursor": None}


@pytest.mark.parametrize(
    ("change", "code", "pointer"),
    [
        ({"url": "http://hooks.example"}, "webhook_refused", "/url"),
        ({"url": "https://10.0.0.1"}, "webhook_refused", "/url"),
        ({"url": "https://2130706433"}, "webhook_refused", "/url"),
        ({"url": ""}, "invalid", "/url"),
        ({"url": "https://a\0"}, "invalid", "/url"),
        ({"url": "https://hooks.example/" + "x" * 2000}, "invalid", "/url"),
        ({"events": []}, "invalid", "/events"),
        ({"events": ["job.made"]}, "invalid", "/events/0"),
        ({"events": "job.failed"}, "invalid", "/events"),
        ({"secret": "whsec_mine"}, "invalid", "/secret"),
    ],
)
def test_what_none_is(change: dict[str, Any], code: str, pointer: str, ann: Person) -> None:
    refused = ann.post("/v1/webhooks", {"url": URL, "events": ENDED} | change)
    assert (refused.status_code, refused.json()["code"]) == (422, code)
    assert refused.json()["errors"][0]["pointer"] == pointer
    assert ann.get("/v1/webhooks").json()["items"] == []


def test_twenty_are_enough(ann: Person) -> None:
    made = [create(ann)["id"] for _ in range(20)]
    refused = ann.post("/v1/webhooks", {"url": URL, "events": ENDED})
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_webhooks")
    assert refused.headers["Retry-After"]
    page = ann.get("/v1/webhooks?limit=15").json()
    rest = ann.get(f"/v1/webhooks?limit=15&cursor={page['next_cursor']}").json()
    assert [each["id"] for each in page["items"] + rest["items"]] == made[::-1]
    assert ann.call("DELETE", f"/v1/webhooks/{made[0]}").status_code == 204
    create(ann)


def calls(webhook: str, delivery: str) -> list[tuple[str, str]]:
    return [
        ("GET", f"/v1/webhooks/{webhook}"),
        ("GET", f"/v1/webhooks/{webhook}/deliveries"),
        ("POST", f"/v1/webhooks/{webhook}/test"),
        ("POST", f"/v1/webhooks/{webhook}/deliveries/{delivery}/redeliver"),
        ("DELETE", f"/v1/webhooks/{webhook}"),
    ]


def test_others_webhooks_are_not_there(ann: Person, bob: Person, server: Server) -> None:
    webhook = create(ann)["id"]
    delivery = ann.post(f"/v1/webhooks/{webhook}/test").json()["id"]
    for name in (webhook, "whk_" + "0" * 26, "nonsense"):
        for method, path in calls(name, delivery):
            refused = bob.call(method, path)
            assert (refused.status_code, refused.json()["code"]) == (404, "not_found"), path
    assert bob.get("/v1/webhooks").json()["items"] == []
    own = create(bob)["id"]
    path = f"/v1/webhooks/{own}/deliveries/{delivery}/redeliver"
    assert bob.post(path).status_code == 404
    named = bob.post("/v1/jobs", {"kind": "generate", "spec": DRAWING, "webhook": webhook})
    assert (named.status_code, named.json()["code"]) == (422, "webhook_unknown")
    assert webhook in named.json()["detail"]
    dry = bob.post(
        "/v1/jobs?dry_run=true", {"kind": "generate", "spec": DRAWING, "webhook": webhook}
    )
    assert dry.json()["code"] == "webhook_unknown"
    assert ann.get(f"/v1/webhooks/{webhook}").status_code == 200


def test_readers_only_read(ann: Person, server: Server) -> None:
    webhook = create(ann)["id"]
    delivery = ann.post(f"/v1/webhooks/{webhook}/test").json()["id"]
    reader = server.person("read", owner=ann.owner)
    assert reader.post("/v1/webhooks", {"url": URL, "events": ENDED}).status_code == 403
    for method, path in calls(webhook, delivery):
        assert reader.call(method, path).status_code == (200 if method == "GET" else 403)


def test_a_job_that_tells(ann: Person) -> None:
    webhook = create(ann, events=["job.queued", "job.cancelled"])["id"]
    job = ann.post("/v1/jobs", {"kind": "generate", "spec": DRAWING, "webhook": webhook}).json()
    assert job["webhook"] == webhook
    ann.post(f"/v1/jobs/{job['id']}/cancel")
    page = ann.get(f"/v1/webhooks/{webhook}/deliveries?limit=1").json()
    rest = ann.get(f"/v1/webhooks/{webhook}/deliveries?cursor={page['next_cursor']}").json()
    last, first = page["items"] + rest["items"]
    assert [first["event"], last["event"]] == ["job.queued", "job.cancelled"]
    assert set(last) == {
        *("id", "event", "job", "state", "attempts", "status", "error"),
        *("created_at", "next_attempt_at", "delivered_at"),
    }
    assert (last["job"], last["state"], last["delivered_at"]) == (job["id"], "pending", None)
    assert last["id"].startswith("dlv_")
    shown = ann.get(f"/v1/webhooks/{webhook}").json()["last_delivery"]
    assert (shown["id"], shown["event"]) == (last["id"], "job.cancelled")
    again = ann.post(f"/v1/jobs/{job['id']}/retry").json()
    assert again["webhook"] == webhook
    assert ann.call("DELETE", f"/v1/webhooks/{webhook}").status_code == 204
    assert ann.get(f"/v1/webhooks/{webhook}").status_code == 404
    ann.post(f"/v1/jobs/{again['id']}/cancel")
    assert ann.get(f"/v1/jobs/{again['id']}").json()["state"] == "cancelled"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def test_the_server_tells_it(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliverer, "LOOK_SECONDS", 0.05)
    settings = Settings(home=tmp_path, webhook_hosts=["127.0.0.1"])
    with TestClient(create_app(settings), base_url="http://localhost") as http:
        server = Server(http, settings)
        ann, admin = server.person("read", "write"), server.person("admin")
        webhook = create(ann, receiver.url)
        path = f"/v1/webhooks/{webhook['id']}"
        sent = ann.post(f"{path}/test", headers={"X-Request-Id": "look-at-me"})
        assert (sent.status_code, sent.json()["event"]) == (202, "webhook.test")

        def last() -> Any:
            return ann.get(path).json()["last_delivery"]

        wait_until(lambda: last()["state"] == "delivered", 60, "it arrived")
        assert last()["delivered_at"]
        again = ann.post(f"{path}/deliveries/{sent.json()['id']}/redeliver")
        assert (again.status_code, again.json()["delivered_at"]) == (202, None)
        wait_until(lambda: last()["attempts"] == 2, 60, "it is sent again")
        wait_until(lambda: last()["state"] == "delivered", 60, "it arrived again")
        assert [got.id for got in receiver.got] == [sent.json()["id"]] * 2
        assert receiver.got[1].verified(webhook["secret"])["data"] == {"webhook": webhook["id"]}
        server.app.state.board._good_until = 0.0  # figures of now
        told = admin.get("/metrics").text
        assert 'stillroom_webhook_deliveries{state="delivered"} 1' in told
        assert 'stillroom_webhook_deliveries{state="failed"} 0' in told


@pytest.mark.faults
def test_an_api_that_is_killed_at_it_costs_nothing(tmp_path: Path, receiver: Receiver) -> None:
    """Between the claim and the sending."""
    settings = Settings(home=tmp_path / "home", port=free_port())
    mark = tmp_path / "mark"
    process = subprocess.Popen(
        [sys.executable, "-m", "api"],
        env={
            **os.environ,
            "STILLROOM_HOME": str(settings.home),
            "STILLROOM_PORT": str(settings.port),
            "STILLROOM_WEBHOOK_HOSTS": '["127.0.0.1"]',
            "STILLROOM_CRASH_AT": "webhooks: claimed",
            "STILLROOM_CRASH_MARK": str(mark),
        },
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(settings.admin_key_path.exists, 60, "the API has begun")
        key = settings.admin_key_path.read_text().strip()
        with Client(f"http://127.0.0.1:{settings.port}", key) as client:
            wait_until(lambda: _answers(client), 60, "the API answers")
            webhook = client.create_webhook(receiver.url, ENDED)
            delivery = client.test_webhook(webhook["id"])
        assert process.wait(30) == 137
    finally:
        process.kill()
    assert receiver.got == []
    with sqlite_opened(settings) as database:
        (row,) = told(database)
        assert (row.id, row.state, row.attempts) == (delivery["id"], "pending", 1)
        deliver(database)
        assert receiver.got == []  # until its lease is over
        pass_time(database)
        deliver(database)
    assert [got.id for got in receiver.got] == [delivery["id"]]


@contextmanager
def sqlite_opened(settings: Settings) -> Iterator[Database]:
    database = Database.of(settings)
    yield database
    database.dispose()


def _answers(client: Client) -> bool:
    try:
        client.healthz()
    except NoAnswer:
        return False
    return True


def test_owners_are_the_keys(ann: Person, server: Server) -> None:
    """Webhooks outlive the key that made them, as jobs do."""
    webhook = create(ann)["id"]
    other = server.person("read", "write", owner=ann.owner)
    with server.database.write() as session:
        key = owners.authenticate(session, ann.token)
        owners.delete(session, key.key_id)
    assert other.get(f"/v1/webhooks/{webhook}").status_code == 200
