"""/v1/jobs, without a worker: they are taken and stay queued."""

from typing import Any

import pytest

from core.db.engine import Database
from tests.api.conftest import Person, Server
from tests.support import uploads


def test_a_job_is_queued_and_read_back(ann: Person) -> None:
    made = ann.fine_tune(seed=7)
    assert made.status_code == 201
    job = made.json()
    assert made.headers["Location"] == f"/v1/jobs/{job['id']}"
    assert set(job) == {
        *("id", "kind", "state", "name", "spec", "progress", "queue_position", "attempt"),
        *(
            "priority",
            "labels",
            "error",
            "parent",
            "after",
            "webhook",
            "result",
            "worker",
            "device",
        ),
        *("usage", "created_at", "started_at", "finished_at"),
    }
    assert (job["kind"], job["state"], job["spec"]["seed"]) == ("fine_tune", "queued", 7)
    assert set(job["progress"]) == {"step", "steps", "fraction", "eta_seconds", "message"}
    assert set(job["usage"]) == {"device_seconds", "queue_seconds"}
    assert job["queue_position"] >= 1
    for again in (ann.get(f"/v1/jobs/{job['id']}").json(), *ann.get("/v1/jobs").json()["items"]):
        assert again["usage"]["queue_seconds"] >= job["usage"]["queue_seconds"]
        assert again | {"usage": None} == job | {"usage": None}


def test_lists_are_filtered(ann: Person) -> None:
    dataset = ann.dataset(("dog.png", uploads.picture()))
    spec = {"base": "nano-ssd-1b", "dataset": dataset, "instance_prompt": "a sks dog"}
    labelled = {
        "kind": "fine_tune",
        "spec": spec,
        "name": "mine",
        "labels": {"team": "a:b", "größe": "L"},
    }
    first = ann.post("/v1/jobs", labelled).json()["id"]
    second = ann.post(
        "/v1/jobs", {"kind": "generate", "spec": {"base": "nano-sdxl", "prompt": "a dog"}}
    ).json()["id"]
    ann.post(f"/v1/jobs/{second}/cancel")

    def found(**query: str) -> list[str]:
        return [job["id"] for job in ann.get("/v1/jobs", params=query).json()["items"]]

    assert found() == [second, first]
    assert found(kind="generate") == [second]
    assert found(state="queued") == [first]
    assert found(label="team:a:b") == [first]
    assert found(label="team:b") == []
    assert found(label="größe:L") == [first]
    for odd in ("team", ":b", 'a"b:v', "a b:v", "a\0:v"):
        assert ann.get("/v1/jobs", params={"label": odd}).status_code == 422
    assert ann.get("/v1/jobs", params={"state": "tired"}).status_code == 422


def test_a_waiting_job_is_cancelled_at_once_and_again(ann: Person) -> None:
    job = ann.fine_tune().json()["id"]
    for _ in range(2):
        cancelled = ann.post(f"/v1/jobs/{job}/cancel")
        assert (cancelled.status_code, cancelled.json()["state"]) == (202, "cancelled")
    assert cancelled.json()["queue_position"] is None


def test_a_waiting_job_pauses_and_resumes(ann: Person) -> None:
    job = ann.fine_tune().json()["id"]
    for _ in range(2):
        paused = ann.post(f"/v1/jobs/{job}/pause")
        assert (paused.status_code, paused.json()["state"]) == (202, "paused")
    assert paused.json()["queue_position"] is None
    assert [each["id"] for each in ann.get("/v1/jobs?state=paused").json()["items"]] == [job]
    for _ in range(2):
        resumed = ann.post(f"/v1/jobs/{job}/resume")
        assert (resumed.status_code, resumed.json()["state"]) == (202, "queued")
    assert resumed.json()["queue_position"] >= 1
    ann.post(f"/v1/jobs/{job}/cancel")
    for action in ("pause", "resume"):
        refused = ann.post(f"/v1/jobs/{job}/{action}")
        assert (refused.status_code, refused.json()["code"]) == (409, "wrong_state")
        assert refused.json()["allowed_actions"] == ["retry"]


def test_a_reader_neither_pauses_nor_resumes(ann: Person, server: Server) -> None:
    job = ann.fine_tune().json()["id"]
    reader = server.person("read", owner=ann.owner)
    for action in ("pause", "resume"):
        refused = reader.post(f"/v1/jobs/{job}/{action}")
        assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")


def test_metrics_of_a_job_that_has_not_begun_are_empty(ann: Person) -> None:
    job = ann.fine_tune().json()["id"]
    told = ann.get(f"/v1/jobs/{job}/metrics")
    assert told.status_code == 200
    assert told.json() == {
        "step": [], "loss": [], "learning_rate": [], "seconds_per_step": [], "terms": {},
    }  # fmt: skip


def test_a_distillation_is_queued(ann: Person) -> None:
    made = ann.distill(steps=3)
    assert made.status_code == 201
    assert (made.json()["kind"], made.json()["spec"]["steps"]) == ("distill", 3)
    told = ann.post(
        "/v1/jobs?dry_run=true",
        {"kind": "distill", "spec": made.json()["spec"] | {"student": {"layout": "vega"}}},
    ).json()
    assert (told["steps"], told["fits"]) == (3, True)
    assert told["peak_memory_bytes"] > 10_000_000


@pytest.mark.parametrize(
    ("change", "pointer", "word"),
    [
        ({"student": {"layers": [0, 1, 2]}}, "/spec/student", "must be 4 different numbers"),
        ({"student": {"layers": [3, 2, 1, 0]}}, "/spec/student", "in order"),
        ({"student": {"layers": [0, 1, 2, 10]}}, "/spec/student/layers/3", "9"),
        ({"student": {"layout": "sdxl"}}, "/spec/student/layout", "ssd-1b"),
        ({"student": {"weights": "ssd-1b"}}, "/spec/student", "pretrained"),
        ({"student": {"init": "pretrained"}}, "/spec", "student.weights"),
        ({"init_from": "art_1"}, "/spec", "pretrained"),
        ({"loss": {"task": 0, "output": 0, "feature": 0}}, "/spec/loss", "nothing"),
        ({"loss": {"feature": -1}}, "/spec/loss/feature", "0"),
        ({"optimizer": "lion"}, "/spec/optimizer", "adafactor"),
        ({"steps": 100_001}, "/spec/steps", "100000"),
        ({"lora": {"rank": 4}}, "/spec/lora", "no field"),
    ],
)
def test_bad_distillations_are_pointed_at(
    change: dict[str, Any], pointer: str, word: str, ann: Person
) -> None:
    refused = ann.distill(**change)
    assert refused.status_code == 422
    (error,) = refused.json()["errors"]
    assert error["pointer"] == pointer
    assert word in error["detail"]
    assert ann.get("/v1/jobs").json()["items"] == []


def test_events_go_on_where_one_stopped(ann: Person) -> None:
    job = ann.fine_tune().json()["id"]
    ann.post(f"/v1/jobs/{job}/cancel")
    events = ann.get(f"/v1/jobs/{job}/events").json()
    assert [event["seq"] for event in events["items"]] == [1, 2]
    assert set(events["items"][0]) == {"seq", "at", "type", "attempt", "data"}
    assert events["next_after"] == 2
    rest = ann.get(f"/v1/jobs/{job}/events", params={"after": 1, "limit": 1}).json()
    assert [event["seq"] for event in rest["items"]] == [2]
    assert ann.get(f"/v1/jobs/{job}/events", params={"after": 2}).json() == {
        "items": [],
        "next_after": 2,
    }


def test_artifacts_of_a_job_come_in_order_of_making(ann: Person, bob: Person) -> None:
    job = ann.fine_tune().json()["id"]
    made = [ann.artifact({f"{n}.png": b"x"}, job_id=job, kind="image").id for n in range(3)]
    path = f"/v1/jobs/{job}/artifacts"
    first = ann.get(path, params={"limit": 2}).json()
    second = ann.get(path, params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [each["id"] for each in first["items"] + second["items"]] == made
    assert second["next_cursor"] is None
    assert bob.get(path).status_code == 404


def test_a_job_that_has_not_ended_cannot_be_extended(ann: Person) -> None:
    job = ann.fine_tune().json()["id"]
    refused = ann.post(f"/v1/jobs/{job}/extend", {"steps": 5})
    assert (refused.status_code, refused.json()["code"]) == (409, "wrong_state")
    assert refused.json()["allowed_actions"] == ["cancel", "pause"]
    refused = ann.post(f"/v1/jobs/{job}/extend", {"steps": 0})
    assert refused.status_code == 422


def test_a_dry_run_checks_all_and_leaves_nothing(ann: Person) -> None:
    dataset = ann.dataset(("dog.png", uploads.picture()))
    spec = {"base": "nano-ssd-1b", "dataset": dataset, "instance_prompt": "sks", "steps": 12}
    told = ann.post("/v1/jobs?dry_run=true", {"kind": "fine_tune", "spec": spec})
    assert told.status_code == 200
    assert "Location" not in told.headers
    forecast = told.json()
    assert (forecast["steps"], forecast["seconds"], forecast["basis"]) == (12, None, "none")
    assert forecast["fits"] is True
    assert forecast["peak_memory_bytes"] > 10_000_000
    assert forecast["disk_bytes"] > 100_000
    assert set(forecast) == {
        *("steps", "seconds", "basis", "peak_memory_bytes", "disk_bytes", "fits"),
    }
    assert ann.get("/v1/jobs").json()["items"] == []
    assert ann.get(f"/v1/datasets/{dataset}").json()["frozen"] is False
    refused = ann.post(
        "/v1/jobs?dry_run=true", {"kind": "fine_tune", "spec": spec | {"dataset": "dst_no"}}
    )
    assert (refused.status_code, refused.json()["code"]) == (404, "not_found")


def test_a_dry_run_of_pictures(ann: Person) -> None:
    spec = {"base": "nano-ssd-1b", "prompt": ["x", "y"], "images": 2, "steps": 10}
    told = ann.post("/v1/jobs?dry_run=true", {"kind": "generate", "spec": spec}).json()
    assert told["steps"] == 40
    assert told["disk_bytes"] == 4 * 3 * 64 * 64


def test_another_owner_finds_nothing(ann: Person, bob: Person) -> None:
    job = ann.fine_tune().json()["id"]
    for answer in (
        bob.get(f"/v1/jobs/{job}"),
        bob.get(f"/v1/jobs/{job}/events"),
        bob.post(f"/v1/jobs/{job}/cancel"),
        bob.post(f"/v1/jobs/{job}/extend", {"steps": 5}),
        bob.post(f"/v1/jobs/{job}/pause"),
        bob.post(f"/v1/jobs/{job}/resume"),
        bob.get(f"/v1/jobs/{job}/metrics"),
        ann.get("/v1/jobs/job_nothing"),
        ann.get("/v1/jobs/not%20an%20id"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert bob.get("/v1/jobs").json()["items"] == []
    theirs = bob.fine_tune(dataset=ann.dataset(("dog.png", uploads.picture())))
    assert theirs.status_code == 404


@pytest.mark.parametrize(
    ("change", "status", "code", "pointer"),
    [
        ({"lora": {"rank": 0}}, 422, "greater_than_equal", "/spec/lora/rank"),
        ({"lora": {"rank": 257}}, 422, "less_than_equal", "/spec/lora/rank"),
        ({"steps": 0}, 422, "greater_than_equal", "/spec/steps"),
        ({"steps": 3, "epochs": 2}, 422, "value_error", "/spec"),
        ({"instance_prompt": " "}, 422, "string_pattern_mismatch", "/spec/instance_prompt"),
        ({"prior": {"weight": 1}}, 422, "value_error", "/spec"),
        ({"buckets": 5}, 422, "value_error", "/spec/buckets"),
        ({"ema": 1}, 422, "less_than", "/spec/ema"),
        ({"sample": {"prompts": []}}, 422, "too_short", "/spec/sample/prompts"),
        ({"stesp": 3}, 422, "extra_forbidden", "/spec/stesp"),
    ],
)
def test_bad_specs_are_pointed_at(
    change: dict[str, Any], status: int, code: str, pointer: str, ann: Person
) -> None:
    refused = ann.fine_tune(**change)
    assert refused.status_code == status
    errors = refused.json()["errors"]
    assert (errors[0]["pointer"], errors[0]["code"]) == (pointer, code)
    assert ann.get("/v1/jobs").json()["items"] == []


def test_a_prompt_of_the_wrong_type_is_pointed_at_without_names_of_types(ann: Person) -> None:
    body = {"kind": "generate", "spec": {"base": "nano-sdxl", "prompt": ["a dog", ""]}}
    errors = ann.post("/v1/jobs", body).json()["errors"]
    assert "/spec/prompt/1" in [error["pointer"] for error in errors]
    assert all("str" not in error["pointer"] for error in errors)


@pytest.mark.parametrize("text", ["\\ud800", "\\u0000"])
def test_what_no_database_can_keep_is_refused(text: str, ann: Person) -> None:
    body = '{"kind": "generate", "spec": {"base": "nano-sdxl", "prompt": "a", "loras": [{"X": 1}]}}'
    refused = ann.post(
        "/v1/jobs",
        content=body.replace("X", text),
        headers={"Content-Type": "application/json"},
    )
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/spec"
    for field in ("name", "after", "webhook", "labels"):
        value = f'{{"a": "{text}"}}' if field == "labels" else f'"{text}"'
        refused = ann.post(
            "/v1/jobs",
            content=f'{{"{field}": {value}, "kind": "generate", "spec": {{}}}}',
            headers={"Content-Type": "application/json"},
        )
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["pointer"].startswith(f"/{field}")


def test_what_a_spec_names_must_be_there(ann: Person) -> None:
    assert ann.fine_tune(base="sd-15").json()["code"] == "base_unknown"
    assert ann.fine_tune(dataset="dst_nothing").status_code == 404
    assert ann.fine_tune(dataset=ann.dataset()).json()["code"] == "dataset_empty"
    absent = ann.fine_tune(base="ssd-1b")
    assert (absent.status_code, absent.json()["code"]) == (409, "base_not_available")
    assert "stillroom models pull ssd-1b" in absent.json()["detail"]


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"kind": "bake"}, "/kind"),
        ({"spec": "nano"}, "/spec"),
        ({"spec": None}, "/spec"),
        ({"priority": 101}, "/priority"),
        ({"labels": {"a b": "c"}}, "/labels/a b"),
        ({"webhook": "whk_1"}, "/webhook"),
        ({"after": 1}, "/after"),
        ({"deadline_seconds": 0}, "/deadline_seconds"),
        ({"colour": "red"}, "/colour"),
    ],
)
def test_bad_submissions(change: dict[str, Any], pointer: str, ann: Person) -> None:
    body = {"kind": "generate", "spec": {"base": "nano-sdxl", "prompt": "a dog"}} | change
    refused = ann.post("/v1/jobs", body)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == pointer


def test_a_spec_is_checked_before_the_database_is_held(
    ann: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Database, "write", None)
    body = {"kind": "generate", "spec": {"base": "x" * 300, "prompt": "a dog"}}
    refused = ann.post("/v1/jobs", body)
    assert refused.json()["errors"][0]["pointer"] == "/spec/base"
    assert len(refused.json()["detail"]) < 200


def test_going_first_takes_an_administrator(ann: Person, admin: Person) -> None:
    body = {"kind": "generate", "spec": {"base": "nano-sdxl", "prompt": "a dog"}, "priority": 1}
    assert ann.post("/v1/jobs", body).status_code == 403
    assert ann.post("/v1/jobs", body | {"priority": -5}).status_code == 201
    first = admin.post("/v1/jobs", body)
    assert first.status_code == 201
    assert first.json()["queue_position"] == 1
    admin.post(f"/v1/jobs/{first.json()['id']}/cancel")


def test_the_bell_rings_after_the_commit(
    ann: Person, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    bell = server.app.state.bell
    monkeypatch.setattr(
        type(bell), "ring", lambda _: seen.append(len(ann.get("/v1/jobs").json()["items"]))
    )
    ann.fine_tune()
    assert seen == [1]
