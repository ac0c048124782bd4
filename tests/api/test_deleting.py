"""What clients change and delete, on each database."""

from typing import Any

import pytest
from sqlalchemy import select

from core.artifacts.store import Store
from core.db.models import Deletion, Job, now
from core.errors import NotFound, Unavailable
from core.files.roll import Roll
from tests.api.conftest import Person
from tests.support import uploads
from tests.support.jobs import change

RED, BLUE = uploads.picture(), uploads.picture(color=(0, 0, 255))


def images_of(person: Person, dataset: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = person.get(f"/v1/datasets/{dataset}/images").json()["items"]
    return items


def stored(person: Person, prefix: str) -> list[str]:
    folder = person.server.settings.blobs_path / prefix
    return [path.name for path in folder.rglob("*") if path.is_file()]


def ended_job(person: Person, **values: Any) -> str:
    """A drawing that has succeeded."""
    spec = {"base": "nano-ssd-1b", "prompt": "x"} | values
    job: str = person.post("/v1/jobs", {"kind": "generate", "spec": spec}).json()["id"]
    end(person, job)
    return job


def end(person: Person, job_id: str, **values: Any) -> None:
    database = person.server.database
    with database.read() as session:
        job = session.get_one(Job, job_id)
    change(database, job, **({"state": "succeeded", "finished_at": now()} | values))


# Pictures


def test_a_caption_is_changed_and_taken_away(ann: Person) -> None:
    dataset = ann.dataset(("red.png", RED))
    (image,) = images_of(ann, dataset)
    path = f"/v1/datasets/{dataset}/images/{image['id']}"
    changed = ann.call("PATCH", path, json={"caption": "a red square"})
    assert (changed.status_code, changed.json()) == (200, image | {"caption": "a red square"})
    assert ann.call("PATCH", path, json={}).json()["caption"] == "a red square"
    assert ann.call("PATCH", path, json={"caption": None}).json()["caption"] is None
    for bad in ({"caption": "x" * 4001}, {"caption": "a\0b"}, {"caption": 3}, {"text": "x"}):
        assert ann.call("PATCH", path, json=bad).status_code == 422


def test_a_picture_goes_with_its_file(ann: Person) -> None:
    dataset = ann.dataset(("red.png", RED), ("blue.png", BLUE))
    blue, red = images_of(ann, dataset)
    path = f"/v1/datasets/{dataset}/images/{red['id']}"
    gone = ann.call("DELETE", path)
    assert (gone.status_code, gone.content) == (204, b"")
    assert images_of(ann, dataset) == [blue]
    assert stored(ann, f"datasets/{dataset}") == [f"{blue['id']}.png"]
    assert ann.call("DELETE", path).status_code == 404
    again = ann.upload(dataset, ("red.png", RED)).json()["items"][0]
    assert (again["problems"], again["id"] == red["id"]) == ([], False)


def test_a_frozen_dataset_keeps_its_pictures(ann: Person) -> None:
    dataset = ann.dataset(("red.png", RED))
    (image,) = images_of(ann, dataset)
    job = ann.fine_tune(dataset=dataset).json()["id"]
    path = f"/v1/datasets/{dataset}/images/{image['id']}"
    for answer in (ann.call("DELETE", path), ann.call("PATCH", path, json={"caption": "x"})):
        assert (answer.status_code, answer.json()["code"]) == (409, "dataset_frozen")
        assert "make a new one with POST /v1/datasets" in answer.json()["detail"]
    ann.post(f"/v1/jobs/{job}/cancel")


# Datasets


def test_a_dataset_goes_once_no_job_needs_it(ann: Person) -> None:
    dataset = ann.dataset(("red.png", RED))
    job = ann.fine_tune(dataset=dataset).json()["id"]
    needed = ann.call("DELETE", f"/v1/datasets/{dataset}")
    assert (needed.status_code, needed.json()["code"]) == (409, "in_use")
    assert f"'{job}' (queued) needs dataset {dataset}" in needed.json()["detail"]
    assert stored(ann, f"datasets/{dataset}") != []
    ann.post(f"/v1/jobs/{job}/cancel")
    assert ann.call("DELETE", f"/v1/datasets/{dataset}").status_code == 204
    assert ann.get(f"/v1/datasets/{dataset}").status_code == 404
    assert stored(ann, f"datasets/{dataset}") == []
    assert ann.get("/v1/datasets").json()["items"] == []
    assert ann.post(f"/v1/jobs/{job}/retry").status_code == 404


def test_what_this_home_made_of_a_dataset_is_gone_with_the_answer(ann: Person) -> None:
    dataset, cache = ann.dataset(("red.png", RED)), ann.server.settings.cache_path / ann.owner
    Roll.of(cache, dataset).add("key")
    (cache / "key.safetensors").write_bytes(b"x")
    assert ann.call("DELETE", f"/v1/datasets/{dataset}").status_code == 204
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_it_is_gone_though_the_store_is_away(ann: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = ann.dataset(("red.png", RED))

    def away(*_: object) -> None:
        raise Unavailable("The store does not answer.")

    with monkeypatch.context() as patched:
        patched.setattr(Store, "delete_prefix", away)
        assert ann.call("DELETE", f"/v1/datasets/{dataset}").status_code == 204
    with ann.server.database.read() as session:
        assert f"datasets/{dataset}/" in session.scalars(select(Deletion.prefix)).all()
    assert stored(ann, f"datasets/{dataset}") != []
    other = ann.dataset(("red.png", RED))
    ann.call("DELETE", f"/v1/datasets/{other}")  # whoever deletes next sees to both
    assert stored(ann, f"datasets/{dataset}") == []


# Artifacts


def test_an_artifact_gets_another_name_and_a_time(ann: Person) -> None:
    artifact = ann.artifact({"dog.safetensors": b"x"})
    path = f"/v1/artifacts/{artifact.id}"
    before = ann.get(path).json()
    at = "2999-01-01T00:00:00Z"
    named = ann.call("PATCH", path, json={"name": "cat"})
    assert (named.status_code, named.json()) == (200, before | {"name": "cat"})
    timed = ann.call("PATCH", path, json={"expires_at": at}).json()
    assert timed == before | {"name": "cat", "expires_at": at}
    assert ann.get(path).json() == timed
    never = ann.call("PATCH", path, json={"expires_at": None, "name": None}).json()
    assert never == before | {"name": "cat"}


@pytest.mark.parametrize(
    "body",
    [
        {"expires_at": "2001-01-01T00:00:00Z"},
        {"expires_at": "9999-12-31T23:59:59-12:00"},
        {"expires_at": "0001-01-01T00:00:00+12:00"},
        {"expires_at": "2999-01-01T00:00:00"},
        {"expires_at": "soon"},
        {"name": ""},
        {"name": "a\nb"},
        {"role": "lora"},
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(body: dict[str, str], ann: Person) -> None:
    path = f"/v1/artifacts/{ann.artifact({'dog.safetensors': b'x'}).id}"
    refused = ann.call("PATCH", path, json=body)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid")
    (field,) = body
    assert refused.json()["errors"][0]["pointer"] == f"/{field}"


def test_an_artifact_goes_once_no_job_needs_it(ann: Person) -> None:
    about: dict[str, Any] = {"base": "nano-ssd-1b", "layout": "ssd-1b", "facts": {"rank": 8}}
    artifact = ann.artifact({"dog.safetensors": b"x"}, **about)
    spec = {"base": "nano-ssd-1b", "prompt": "x", "loras": [{"artifact": artifact.id}]}
    job = ann.post("/v1/jobs", {"kind": "generate", "spec": spec}).json()["id"]
    path = f"/v1/artifacts/{artifact.id}"
    needed = ann.call("DELETE", path)
    assert (needed.status_code, needed.json()["code"]) == (409, "in_use")
    assert job in needed.json()["detail"]
    ann.post(f"/v1/jobs/{job}/cancel")
    assert ann.call("DELETE", path).status_code == 204
    assert ann.get(path).status_code == ann.get(f"{path}/content").status_code == 404
    with pytest.raises(NotFound):
        ann.server.store.size(artifact.files[0]["store_key"])


# Jobs


def test_an_ended_job_goes_with_all_that_it_made(ann: Person) -> None:
    job = ended_job(ann)
    artifact = ann.artifact({"a.png": RED}, job_id=job, kind="image", role="image", format="png")
    assert ann.call("DELETE", f"/v1/jobs/{job}").status_code == 204
    for path in ("", "/events", "/logs", "/artifacts", "/metrics"):
        assert ann.get(f"/v1/jobs/{job}{path}").status_code == 404
    assert ann.get(f"/v1/artifacts/{artifact.id}").status_code == 404
    assert ann.call("DELETE", f"/v1/jobs/{job}").status_code == 404


def test_only_an_ended_job_goes(ann: Person) -> None:
    job = ann.fine_tune().json()["id"]
    refused = ann.call("DELETE", f"/v1/jobs/{job}")
    assert (refused.status_code, refused.json()["code"]) == (409, "wrong_state")
    assert refused.json()["allowed_actions"] == ["cancel", "pause"]
    ann.post(f"/v1/jobs/{job}/cancel")
    assert ann.call("DELETE", f"/v1/jobs/{job}").status_code == 204


def test_a_job_stays_while_another_one_needs_it(ann: Person) -> None:
    job = ended_job(ann)
    body = {"kind": "generate", "spec": {"base": "nano-ssd-1b", "prompt": "x"}, "after": job}
    child = ann.post("/v1/jobs", body).json()["id"]
    needed = ann.call("DELETE", f"/v1/jobs/{job}")
    assert (needed.status_code, needed.json()["code"]) == (409, "in_use")
    assert child in needed.json()["detail"]
    ann.post(f"/v1/jobs/{child}/cancel")
    assert ann.call("DELETE", f"/v1/jobs/{job}").status_code == 204


def test_a_request_that_comes_again_after_its_job_went_finds_nothing(ann: Person) -> None:
    body = {"kind": "generate", "spec": {"base": "nano-ssd-1b", "prompt": "x"}}
    key = {"Idempotency-Key": "once"}
    job = ann.post("/v1/jobs", body, headers=key).json()["id"]
    end(ann, job)
    ann.call("DELETE", f"/v1/jobs/{job}")
    assert ann.post("/v1/jobs", body, headers=key).status_code == 404


# Whose


def test_nobody_changes_or_deletes_what_is_anothers(ann: Person, bob: Person) -> None:
    dataset = ann.dataset(("red.png", RED))
    (image,) = images_of(ann, dataset)
    artifact = ann.artifact({"dog.safetensors": b"x"})
    reader = ann.server.person("read", owner=ann.owner)
    calls: list[tuple[str, str, dict[str, Any]]] = [
        ("DELETE", f"/v1/datasets/{dataset}", {}),
        ("DELETE", f"/v1/datasets/{dataset}/images/{image['id']}", {}),
        ("PATCH", f"/v1/datasets/{dataset}/images/{image['id']}", {"json": {"caption": "x"}}),
        ("DELETE", f"/v1/artifacts/{artifact.id}", {}),
        ("PATCH", f"/v1/artifacts/{artifact.id}", {"json": {"name": "x"}}),
        ("DELETE", f"/v1/jobs/{ended_job(ann)}", {}),
    ]
    for method, path, request in calls:
        for who, status, code in ((bob, 404, "not_found"), (reader, 403, "insufficient_scope")):
            refused = who.call(method, path, **request)
            assert (refused.status_code, refused.json()["code"]) == (status, code), path
    assert ann.get(f"/v1/artifacts/{artifact.id}").json()["name"] == "my dog"
    for method, path, request in calls:
        assert ann.call(method, path, **request).status_code in (200, 204, 404), path
