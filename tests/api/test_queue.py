"""/v1/queue, and what a job's turn depends on: parents, deadlines, retries. What it took, too."""

from datetime import timedelta
from typing import Any

import pytest

from core.db.models import Job, now
from core.jobs import logs
from core.jobs.attempt import Attempt
from core.jobs.states import State
from core.jobs.transition import move
from tests.api.conftest import Person, Server
from tests.support.server import wait_until

DRAWING: dict[str, Any] = {"base": "nano-ssd-1b", "prompt": "a red circle"}


def draw(person: Person, spec: dict[str, Any] | None = None, **about: Any) -> dict[str, Any]:
    made = person.post("/v1/jobs", {"kind": "generate", "spec": spec or DRAWING, **about})
    assert made.status_code == 201, made.text
    job: dict[str, Any] = made.json()
    return job


def begin(server: Server, job_id: str, *, seconds_ago: float = 0.0) -> Attempt:
    """As a worker of another host claims it."""
    worker_id, at = server.worker("nano-ssd-1b"), now() - timedelta(seconds=seconds_ago)
    with server.database.write() as session:
        job = move(
            session,
            job_id=job_id,
            start=State.QUEUED,
            to=State.RUNNING,
            attempt=Job.attempt + 1,
            worker_id=worker_id,
            device="cpu",
            claimed_at=at,
            started_at=at,
        )
    assert job is not None
    return Attempt(job_id, job.attempt)


def fail(server: Server, job_id: str) -> None:
    attempt = begin(server, job_id)
    with server.database.write() as session:
        attempt.fail(session, "non_finite_loss", "The loss became infinite.")


def test_a_job_comes_after_another(ann: Person, server: Server) -> None:
    parent = draw(ann)
    child = draw(ann, after=parent["id"])
    assert (child["after"], child["queue_position"]) == (parent["id"], None)
    assert (child["state"], child["progress"]["message"]) == ("queued", "waiting")
    ann.post(f"/v1/jobs/{parent['id']}/cancel")
    failed = ann.get(f"/v1/jobs/{child['id']}").json()
    assert (failed["state"], failed["error"]["code"]) == ("failed", "parent_failed")
    assert parent["id"] in failed["error"]["detail"]
    refused = ann.post("/v1/jobs", {"kind": "generate", "spec": DRAWING, "after": parent["id"]})
    assert (refused.status_code, refused.json()["code"]) == (422, "parent_failed")


def test_a_drawing_waits_for_the_lora_that_a_job_will_make(ann: Person) -> None:
    training = ann.fine_tune().json()["id"]
    loras = [{"job": training, "weight": 0.8}]
    child = draw(ann, DRAWING | {"loras": loras})
    assert child["progress"]["message"] == "waiting"
    assert child["spec"]["loras"] == [{"artifact": None, **loras[0]}]
    spec = DRAWING | {"loras": [{"job": child["id"]}]}
    refused = ann.post("/v1/jobs", {"kind": "generate", "spec": spec})
    assert (refused.status_code, refused.json()["code"]) == (422, "not_a_lora")


def test_another_owners_job_is_no_parent(ann: Person, bob: Person) -> None:
    theirs = bob.fine_tune().json()["id"]
    for body in (
        {"spec": DRAWING, "after": theirs},
        {"spec": DRAWING | {"loras": [{"job": theirs}]}},
        {"spec": DRAWING, "after": "job_nothing"},
    ):
        refused = ann.post("/v1/jobs", {"kind": "generate", **body})
        assert (refused.status_code, refused.json()["code"]) == (404, "not_found")
    assert ann.get("/v1/jobs").json()["items"] == []


def test_a_deadline_ends_what_nobody_began(ann: Person) -> None:
    job = draw(ann, deadline_seconds=0.2)
    path = f"/v1/jobs/{job['id']}"
    wait_until(lambda: ann.get(path).json()["state"] == "expired", 60, "the reaper saw it")
    expired = ann.get(path).json()
    assert expired["error"]["code"] == "deadline_passed"
    assert expired["queue_position"] is None
    assert ann.get("/v1/jobs?state=expired").json()["items"] == [expired]


def test_a_retry_is_a_new_job(ann: Person, server: Server) -> None:
    job = draw(ann, name="mine", labels={"for": "a test"})
    fail(server, job["id"])
    made = ann.post(f"/v1/jobs/{job['id']}/retry")
    assert made.status_code == 201
    again = made.json()
    assert made.headers["Location"] == f"/v1/jobs/{again['id']}"
    assert (again["parent"], again["state"], again["attempt"]) == (job["id"], "queued", 0)
    assert (again["name"], again["labels"], again["spec"]) == ("mine", job["labels"], job["spec"])
    assert again["queue_position"] >= 1
    assert ann.get(f"/v1/jobs/{job['id']}").json()["state"] == "failed"


def test_what_has_not_ended_without_success_is_not_tried_again(ann: Person, server: Server) -> None:
    job = draw(ann)["id"]
    for action, allowed in ((None, ["cancel", "pause"]), ("pause", ["cancel", "resume"])):
        if action:
            ann.post(f"/v1/jobs/{job}/{action}")
        refused = ann.post(f"/v1/jobs/{job}/retry")
        assert (refused.status_code, refused.json()["code"]) == (409, "wrong_state")
        assert refused.json()["allowed_actions"] == allowed
    ann.post(f"/v1/jobs/{job}/resume")
    attempt = begin(server, job)
    with server.database.write() as session:
        attempt.succeed(session, {"images": []})
    refused = ann.post(f"/v1/jobs/{job}/retry")
    assert (refused.status_code, refused.json()["allowed_actions"]) == (409, [])


def test_logs_are_the_last_lines(ann: Person, server: Server) -> None:
    job = draw(ann)["id"]
    path = f"/v1/jobs/{job}/logs"
    assert ann.get(path).json() == {"lines": []}
    with server.database.write() as session:
        logs.keep(session, job, [f"line {number}" for number in range(300)])
    assert len(ann.get(path).json()["lines"]) == 100
    assert ann.get(path, params={"tail": 2}).json() == {"lines": ["line 298", "line 299"]}
    for tail in ("0", "501", "all"):
        assert ann.get(path, params={"tail": tail}).status_code == 422


def test_another_owner_neither_retries_nor_reads_logs(
    ann: Person, bob: Person, server: Server
) -> None:
    job = draw(ann)["id"]
    fail(server, job)
    for answer in (bob.post(f"/v1/jobs/{job}/retry"), bob.get(f"/v1/jobs/{job}/logs")):
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    reader = server.person("read", owner=ann.owner)
    assert reader.post(f"/v1/jobs/{job}/retry").status_code == 403
    assert reader.get(f"/v1/jobs/{job}/logs").status_code == 200
    writer = server.person("write", owner=ann.owner)
    assert writer.get(f"/v1/jobs/{job}/logs").status_code == 403


def test_the_queue_tells_ones_own_places(ann: Person, bob: Person) -> None:
    first, second = draw(ann), draw(ann)
    last = draw(ann, priority=-5)
    waiting = draw(ann, after=first["id"])
    theirs = draw(bob)
    told = ann.get("/v1/queue")
    assert told.status_code == 200
    queue = told.json()
    assert set(queue) == {"depth", "running", "items"}
    assert [place["job"] for place in queue["items"]] == [
        first["id"],
        second["id"],
        last["id"],
    ]
    positions = [place["position"] for place in queue["items"]]
    assert positions == sorted(set(positions))
    assert all(set(place) == {"job", "position", "eta_seconds"} for place in queue["items"])
    assert queue["depth"] >= 4
    assert waiting["id"] not in told.text
    assert theirs["id"] not in told.text


def test_the_queue_is_for_readers(server: Server) -> None:
    assert server.person("write").get("/v1/queue").status_code == 403
    queue = server.person("read").get("/v1/queue").json()
    assert queue["items"] == []


def test_usage_is_told_to_this_moment(ann: Person, server: Server) -> None:
    job = draw(ann)["id"]
    child = draw(ann, after=job)["id"]

    def usage(job_id: str) -> tuple[float, float]:
        told = ann.get(f"/v1/jobs/{job_id}").json()["usage"]
        return told["device_seconds"], told["queue_seconds"]

    with server.database.write() as session:
        session.get_one(Job, job).queued_at = now() - timedelta(seconds=30)
    assert usage(job)[0] == 0
    assert usage(job)[1] == pytest.approx(30, abs=5)
    attempt = begin(server, job, seconds_ago=60)
    assert usage(job)[0] == pytest.approx(60, abs=5)
    with server.database.write() as session:
        attempt.fail(session, "odd", "It was told to.")
    assert usage(job)[0] == pytest.approx(60, abs=5)
    assert usage(child) == (0, 0)  # it waited for a job, never for a device


def test_what_an_admin_put_first_is_not_put_first_again_by_others(
    ann: Person, server: Server
) -> None:
    job = draw(ann)
    with server.database.write() as session:
        session.get_one(Job, job["id"]).priority = 5
    ann.post(f"/v1/jobs/{job['id']}/cancel")
    refused = ann.post(f"/v1/jobs/{job['id']}/retry")
    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")
    assert [each["id"] for each in ann.get("/v1/jobs").json()["items"]] == [job["id"]]


def test_a_dry_run_looks_at_parents_too(ann: Person) -> None:
    parent = draw(ann)
    body = {"kind": "generate", "spec": DRAWING, "after": parent["id"]}
    assert ann.post("/v1/jobs?dry_run=true", body).status_code == 200
    ann.post(f"/v1/jobs/{parent['id']}/cancel")
    assert ann.post("/v1/jobs?dry_run=true", body).json()["code"] == "parent_failed"
