"""A request that is sent again under its key makes nothing more."""

import io
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from httpx2 import Response
from sqlalchemy import select, update

from core.db.models import IdempotencyKey, now
from core.ids import new_id
from core.retention import Retention
from tests.api.conftest import Person, Server
from tests.support import loras, uploads

DRAWING: dict[str, Any] = {
    "kind": "generate",
    "spec": {"base": "nano-ssd-1b", "prompt": "a red circle"},
}
LORA = loras.file_of(loras.spelt(loras.kohya_sgm, loras.unet_pairs(rank=2), 1))


def send(
    person: Person, key: str, body: dict[str, Any] | None = None, path: str = "/v1/jobs"
) -> Response:
    return person.post(path, body, headers={"Idempotency-Key": key})


def jobs_of(person: Person) -> list[str]:
    return [job["id"] for job in person.get("/v1/jobs").json()["items"]]


def grow_old(server: Server, person: Person) -> None:
    """All that the person sent was sent a day ago."""
    with server.database.write() as session:
        sent = update(IdempotencyKey).where(IdempotencyKey.owner == person.owner)
        session.execute(sent.values(created_at=now() - timedelta(hours=24, seconds=1)))


def test_the_same_request_again_is_answered_with_the_job_as_it_is_now(ann: Person) -> None:
    first = send(ann, "a key", DRAWING)
    assert (first.status_code, "Idempotency-Replayed" in first.headers) == (201, False)
    ann.post(f"/v1/jobs/{first.json()['id']}/cancel")
    again = send(ann, "a key", dict(reversed(DRAWING.items())))
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (201, "true")
    assert again.headers["Location"] == first.headers["Location"]
    assert (again.json()["id"], again.json()["state"]) == (first.json()["id"], "cancelled")
    assert jobs_of(ann) == [first.json()["id"]]


@pytest.mark.parametrize(
    ("path", "content", "type", "status"),
    [
        ("/v1/datasets", b"name=x", "application/x-www-form-urlencoded", 415),
        ("/v1/jobs", b"nope", "text/plain", 415),
        ("/v1/jobs", b"[" * 100_000, "text/plain", 415),
        ("/v1/jobs", b"nope", "application/json", 400),
        ("/v1/jobs/job_none/retry", b"nope", "text/plain", 404),
    ],
)
def test_a_body_that_is_no_json_is_judged_as_without_a_key(
    path: str, content: bytes, type: str, status: int, ann: Person
) -> None:
    headers = {"Idempotency-Key": "a key", "Content-Type": type}
    assert ann.post(path, content=content, headers=headers).status_code == status


def test_a_key_belongs_to_an_owner_a_call_and_a_body(ann: Person, bob: Person) -> None:
    first = send(ann, "a key", DRAWING)
    assert send(bob, "a key", DRAWING).json()["id"] != first.json()["id"]
    other = send(ann, "a key", DRAWING | {"name": "another"})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    assert "'a key' was sent to POST /v1/jobs before" in other.json()["detail"]
    assert len(jobs_of(ann)) == 1


def test_a_job_is_retried_once(ann: Person) -> None:
    job = send(ann, "a key", DRAWING).json()["id"]
    ann.post(f"/v1/jobs/{job}/cancel")
    first, again = (send(ann, "a key", path=f"/v1/jobs/{job}/retry") for _ in range(2))
    assert first.json()["id"] == again.json()["id"] != job
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (201, "true")
    assert len(jobs_of(ann)) == 2


def test_what_was_refused_may_be_sent_again(ann: Person) -> None:
    wrong = {"kind": "generate", "spec": DRAWING["spec"] | {"base": "nano"}}
    assert [send(ann, "a key", wrong).status_code for _ in range(2)] == [422, 422]
    assert send(ann, "a key", DRAWING).status_code == 201


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_a_key_has_a_length(key: str, ann: Person) -> None:
    assert send(ann, key, DRAWING).status_code == 422


def test_a_dry_run_uses_no_key_up(ann: Person) -> None:
    told = send(ann, "a key", DRAWING, path="/v1/jobs?dry_run=true")
    assert told.status_code == 200
    assert "Idempotency-Replayed" not in send(ann, "a key", DRAWING).headers


def test_ten_who_send_at_once_make_one_job(ann: Person) -> None:
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: send(ann, "a key", DRAWING), range(10)))
    assert {answer.status_code for answer in answers} == {201}
    assert {answer.json()["id"] for answer in answers} == set(jobs_of(ann))
    assert len(jobs_of(ann)) == 1
    assert sum("Idempotency-Replayed" in answer.headers for answer in answers) == 9


def test_after_a_day_a_key_is_new(ann: Person, server: Server) -> None:
    first = send(ann, "a key", DRAWING)
    grow_old(server, ann)
    again = send(ann, "a key", DRAWING)
    assert "Idempotency-Replayed" not in again.headers
    assert set(jobs_of(ann)) == {first.json()["id"], again.json()["id"]}


def test_keys_are_taken_away_after_a_day(ann: Person, server: Server) -> None:
    send(ann, "old", DRAWING)
    grow_old(server, ann)
    send(ann, "young", DRAWING)
    Retention(server.database, server.store, server.settings).look()
    with server.database.read() as session:
        kept = select(IdempotencyKey.key).where(IdempotencyKey.owner == ann.owner)
        assert list(session.scalars(kept)) == ["young"]


def upload(person: Person, path: str, key: str, field: str, *files: tuple[str, bytes]) -> Response:
    sent = [(field, (name, io.BytesIO(content))) for name, content in files]
    return person.post(path, files=sent, headers={"Idempotency-Key": key})


def test_a_dataset_is_made_once(ann: Person) -> None:
    body = {"name": "dog", "kind": "instance"}
    first, again = (send(ann, "a key", body, "/v1/datasets") for _ in range(2))
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (201, "true")
    assert first.json()["id"] == again.json()["id"]
    assert again.headers["Location"] == f"/v1/datasets/{first.json()['id']}"
    other = send(ann, "a key", body | {"name": "cat"}, "/v1/datasets")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    ann.call("DELETE", f"/v1/datasets/{first.json()['id']}")
    assert send(ann, "a key", body, "/v1/datasets").status_code == 404, "it is gone, as it is now"


def test_a_key_is_made_once_and_shown_once(admin: Person) -> None:
    body = {"name": new_id("req"), "owner": "carol"}
    first, again = (send(admin, body["name"], body, "/v1/keys") for _ in range(2))
    assert first.json()["key"].startswith("stillroom_")
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (201, "true")
    assert again.json() == first.json() | {"key": None}
    named = [key for key in admin.get("/v1/keys").json()["items"] if key["name"] == body["name"]]
    assert len(named) == 1


def test_pictures_under_a_key(ann: Person) -> None:
    place = f"/v1/datasets/{ann.dataset()}/images"
    dog, cat = uploads.picture(), uploads.picture(color=(0, 200, 0))
    first, again = (upload(ann, place, "a key", "files", ("dog.png", dog)) for _ in range(2))
    assert (first.status_code, "Idempotency-Replayed" in first.headers) == (201, False)
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (201, "true")
    assert first.json()["items"][0]["id"] == again.json()["items"][0]["id"]
    other = upload(ann, place, "a key", "files", ("dog.png", cat))
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    assert len(ann.get(place).json()["items"]) == 1, "what was refused is not taken"


def test_a_lora_under_a_key(ann: Person) -> None:
    place, sent = "/v1/artifacts", ("dog.safetensors", LORA)
    first, again = (upload(ann, place, "a key", "file", sent) for _ in range(2))
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (201, "true")
    assert first.json() == again.json()
    other = upload(ann, place, "a key", "file", ("cat.safetensors", sent[1]))
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    ann.call("DELETE", f"{place}/{first.json()['id']}")
    assert upload(ann, place, "a key", "file", sent).status_code == 404
    assert ann.get(place).json()["items"] == []


def test_uploads_under_a_key_after_a_day(ann: Person, server: Server) -> None:
    place = f"/v1/datasets/{ann.dataset()}/images"
    upload(ann, place, "a key", "files", ("dog.png", uploads.picture()))
    grow_old(server, ann)
    later = upload(ann, place, "a key", "files", ("cat.png", uploads.picture(color=(0, 200, 0))))
    assert (later.status_code, "Idempotency-Replayed" in later.headers) == (201, False)


def test_a_webhook_is_made_once_and_its_secret_shown_to_who_made_it(ann: Person) -> None:
    body = {"url": "https://receiver.invalid/", "events": ["job.succeeded"]}
    first, again = (send(ann, "a key", body, "/v1/webhooks") for _ in range(2))
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (201, "true")
    assert first.json() == again.json()
    assert again.headers["Cache-Control"] == "no-store"
    path = f"/v1/webhooks/{first.json()['id']}/test"
    one, two = (send(ann, "a key", path=path) for _ in range(2))
    assert (one.status_code, two.status_code) == (202, 202)
    assert one.json()["id"] == two.json()["id"]
    assert two.headers["Idempotency-Replayed"] == "true"
