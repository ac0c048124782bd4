"""X-Request-Id: taken over where it can be, told in every answer, kept with the job it makes."""

import pytest

from core.db.models import Job
from tests.api.conftest import Person, Server
from tests.api.test_queue import DRAWING, draw
from tests.support.log_lines import json_lines

SENT = "build-7f.3_A"


def kept(server: Server, job_id: str) -> str | None:
    with server.database.read() as session:
        return session.get_one(Job, job_id).request_id


@pytest.mark.parametrize("sent", [SENT, "x", "0" * 64, "3f2504e0-4f89-41d3-9a0c-0305e82c3301"])
def test_a_clients_own_id_is_taken(sent: str, ann: Person) -> None:
    for path in ("/v1/jobs", "/v1/jobs/job_nothing", "/nowhere", "/healthz"):
        answer = ann.get(path, headers={"X-Request-Id": sent})
        assert answer.headers["X-Request-Id"] == sent
        if answer.is_error:
            assert answer.json()["request_id"] == sent


@pytest.mark.parametrize(
    "sent",
    ["", " ", "0" * 65, "a b", "a\tb", 'a"b', "<b>", "-a", ".a", "a/b", "a;b", "\xe4", "%0a"],
)
def test_what_a_log_line_should_not_hold_is_not(sent: str, ann: Person) -> None:
    answer = ann.get("/v1/jobs", headers={"X-Request-Id": sent.encode("latin-1")})
    assert answer.status_code == 200
    assert answer.headers["X-Request-Id"].startswith("req_")


def test_strangers_are_told_theirs_too(server: Server) -> None:
    refused = server.http.get("/v1/jobs", headers={"X-Request-Id": SENT})
    assert refused.status_code == 401
    assert refused.json()["request_id"] == refused.headers["X-Request-Id"] == SENT


def test_the_log_has_it(ann: Person) -> None:
    with json_lines() as lines:
        ann.get("/v1/jobs/job_nothing", headers={"X-Request-Id": SENT})
    ours = [line for line in lines() if line["from"].startswith("api.")]
    assert [(line["message"], line["request_id"]) for line in ours] == [
        ("GET /v1/jobs/job_nothing", SENT)
    ]


def test_a_job_keeps_the_id_of_the_request_that_made_it(ann: Person, server: Server) -> None:
    made = ann.post(
        "/v1/jobs",
        {"kind": "generate", "spec": DRAWING},
        headers={"X-Request-Id": SENT, "Idempotency-Key": SENT},
    )
    job = made.json()["id"]
    assert kept(server, job) == SENT
    again = ann.post(
        "/v1/jobs",
        {"kind": "generate", "spec": DRAWING},
        headers={"X-Request-Id": "another", "Idempotency-Key": SENT},
    )
    assert (again.json()["id"], again.headers["X-Request-Id"]) == (job, "another")
    assert kept(server, job) == SENT
    other = draw(ann)["id"]
    assert str(kept(server, other)).startswith("req_")


def test_a_retry_keeps_its_own(ann: Person, server: Server) -> None:
    job = draw(ann)["id"]
    ann.post(f"/v1/jobs/{job}/cancel")
    again = ann.post(f"/v1/jobs/{job}/retry", headers={"X-Request-Id": SENT})
    assert again.status_code == 201
    assert kept(server, again.json()["id"]) == SENT
