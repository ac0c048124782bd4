"""What holds for every route there is: who may call it, whose rows it shows, and that reading
changes nothing."""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from httpx2 import Response
from sqlalchemy import select
from starlette.routing import Route

from api.main import create_app
from core.config import Settings
from core.db.models import Base, Delivery, Worker
from core.ids import new_id
from tests.api.conftest import Person, Server
from tests.support import loras, uploads

Call = tuple[str, str]
CALLS: list[Call] = [
    (method, route.path.replace(":path", ""))
    for route in create_app(Settings(home=Path("unused"))).state.routes
    for method in sorted(route.methods)
]
OPEN = {"/links/{artifact_id}", "/healthz", "/readyz", "/docs", "/docs/docs.js", "/docs/docs.css"}
OPEN |= {"/", "/page/{path}"}
"""Without a key."""
FOR_ADMINISTRATORS = {"/v1/keys", "/v1/keys/{key_id}", "/metrics"}
FOR_ADMINISTRATORS |= {f"/v1/workers/{{worker_id}}/{action}" for action in ("drain", "release")}
OF_OWNERS = (
    *("{dataset_id}", "{image_id}", "{job_id}", "{artifact_id}"),
    *("{webhook_id}", "{delivery_id}"),
)
"""Parts of a path that name a row of somebody's."""
LORA = loras.file_of(loras.spelt(loras.kohya_sgm, loras.unet_pairs(rank=2), 1))
WEBHOOK = {"url": "https://receiver.invalid/", "events": ["job.succeeded"]}
BODIES: dict[Call, dict[str, Any]] = {
    ("POST", "/v1/datasets"): {"json": {"name": "dog", "kind": "instance"}},
    ("POST", "/v1/datasets/{dataset_id}/images"): {"files": {"files": ("a.png", b"x")}},
    ("PATCH", "/v1/datasets/{dataset_id}/images/{image_id}"): {"json": {"caption": "a dog"}},
    ("POST", "/v1/jobs"): {
        "json": {"kind": "generate", "spec": {"base": "nano-ssd-1b", "prompt": "a dog"}}
    },
    ("POST", "/v1/jobs/{job_id}/extend"): {"json": {"steps": 10}},
    ("POST", "/v1/artifacts"): {"files": {"file": ("a.safetensors", LORA)}},
    ("PATCH", "/v1/artifacts/{artifact_id}"): {"json": {"name": "another"}},
    ("POST", "/v1/artifacts/{artifact_id}/link"): {"json": {"expires_in": 60}},
    ("POST", "/v1/keys"): {"json": {"name": "mine"}},
    ("POST", "/v1/webhooks"): {"json": WEBHOOK},
}


@dataclass(frozen=True)
class Place:
    """A person, and one row of each sort that is theirs."""

    person: Person
    ids: dict[str, str]

    def call(self, call: Call, by: Person, **others: str) -> Response:
        method, path = call
        return by.call(method, path.format(**self.ids | others), **BODIES.get(call, {}))


@pytest.fixture(scope="module")
def place(server: Server) -> Place:
    ann = server.person("read", "write")
    dataset = ann.dataset(("dog.png", uploads.picture()))
    webhook = ann.post("/v1/webhooks", WEBHOOK).json()["id"]
    return Place(
        ann,
        {
            "dataset_id": dataset,
            "image_id": ann.get(f"/v1/datasets/{dataset}/images").json()["items"][0]["id"],
            "job_id": ann.fine_tune().json()["id"],
            "artifact_id": ann.artifact({"dog.safetensors": LORA}).id,
            "path": "dog.safetensors",
            "webhook_id": webhook,
            "delivery_id": ann.post(f"/v1/webhooks/{webhook}/test").json()["id"],
            "worker_id": server.worker("nano-ssd-1b"),
            "key_id": new_id("key"),
        },
    )


def named(call: Call) -> str:
    return " ".join(call)


def missing(id: str) -> str:
    """One that was never given out."""
    return new_id(id.split("_")[0])  # type: ignore[arg-type]


with_rows = [call for call in CALLS if any(part in call[1] for part in OF_OWNERS)]
with_key = [call for call in CALLS if call[1] not in OPEN]


def test_no_route_is_left_out(server: Server) -> None:
    documented = {
        (method.upper(), path)
        for path, operations in server.http.get("/openapi.json").json()["paths"].items()
        for method in operations
    }
    assert documented <= set(CALLS)
    assert {call for call in with_key if call[0] in ("POST", "PATCH", "PUT")} >= set(BODIES)
    assert all(isinstance(route, Route) for route in server.app.state.routes)


@pytest.mark.parametrize("call", with_rows, ids=named)
def test_to_another_owner_a_row_is_not_there(call: Call, place: Place, bob: Person) -> None:
    refused = place.call(call, bob)
    assert (refused.status_code, call[0] == "HEAD" or refused.json()["code"]) in (
        (404, "not_found"),
        (404, True),
    )
    theirs = re.findall(r"{(\w+)}", call[1])[-1]
    made_up = missing(place.ids[theirs]) if "_id" in theirs else place.ids[theirs]
    never = place.call(call, bob, **{theirs: made_up})
    told = (
        answer.text.replace(id, "…")
        for answer, id in ((refused, place.ids[theirs]), (never, made_up))
    )
    assert len({re.sub(r"req_\w+", "", each) for each in told}) == 1, "nobody sees that it is there"


@pytest.mark.parametrize("call", with_rows, ids=named)
def test_a_malformed_id_is_one_that_is_not_there(call: Call, place: Place) -> None:
    for wrong in ("x", "job_", "%00", "...", "💧", "a" * 300):
        ids = {name: wrong for name in place.ids if name.endswith("_id")}
        answer = place.call(call, place.person, **ids)
        assert answer.status_code in (404, 405), (wrong, answer.text)


@pytest.mark.parametrize("call", with_key, ids=named)
def test_nothing_answers_without_a_key(call: Call, place: Place, server: Server) -> None:
    nobody = Person(server, "nobody", "stillroom_wrong")
    assert place.call(call, nobody).status_code == 401


@pytest.mark.parametrize("call", with_key, ids=named)
def test_each_route_takes_its_scope(call: Call, place: Place, server: Server) -> None:
    reads = call[0] == "GET" or call[1].endswith("/link")
    needed = "admin" if call[1] in FOR_ADMINISTRATORS else "read" if reads else "write"
    rest = {"read", "write", "admin"} - {needed}
    lacking = server.person(*rest, owner=place.person.owner)  # type: ignore[arg-type]
    answer = place.call(call, lacking)
    assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")
    assert f"`{needed}`" in answer.json()["detail"]


@pytest.mark.parametrize("call", [call for call in CALLS if call[0] in ("GET", "HEAD")], ids=named)
def test_reading_changes_nothing(call: Call, place: Place, server: Server) -> None:
    reader = server.person("read", "admin", owner=place.person.owner)
    before = everything(server)
    answer = place.call(call, reader)
    assert answer.status_code in (200, 404)
    assert everything(server) == before


def everything(server: Server) -> dict[str, Any]:
    """Rows and files, without what goes on by itself: beats, and what webhooks are told."""
    with server.database.read() as session:
        rows = {
            table.name: sorted(map(repr, session.execute(select(table))))
            for table in Base.metadata.sorted_tables
            if table not in (Worker.__table__, Delivery.__table__)
        }
    return rows | {"files": sorted(map(str, files_below(server.settings.blobs_path)))}


def files_below(folder: Path) -> Iterator[Path]:
    return itertools.chain([], folder.rglob("*"))


SPECS: dict[str, dict[str, Any]] = {
    "fine_tune": {"base": "nano-ssd-1b", "instance_prompt": "a sks dog"},
    "distill": {"teacher": "nano-sdxl"},
    "generate": {"base": "nano-ssd-1b", "prompt": "a dog"},
}
NAMED: list[tuple[str, dict[str, Any]]] = [
    ("fine_tune", {"dataset": "dataset_id"}),
    ("fine_tune", {"dataset": "own", "init_from": "artifact_id"}),
    ("fine_tune", {"dataset": "own", "base": "artifact_id"}),
    ("distill", {"dataset": "dataset_id"}),
    ("distill", {"dataset": "own", "teacher": "artifact_id"}),
    ("generate", {"base": "artifact_id"}),
    ("generate", {"loras": [{"artifact": "artifact_id"}]}),
    ("generate", {"loras": [{"job": "job_id"}]}),
    ("generate", {"image": {"dataset": "dataset_id", "image": "image_id", "strength": 0.5}}),
    ("generate", {"after": "job_id"}),
    ("generate", {"webhook": "webhook_id"}),
]


@pytest.mark.parametrize(("kind", "names"), NAMED, ids=str)
def test_a_job_cannot_name_a_row_of_another_owner(
    kind: str, names: dict[str, Any], place: Place, bob: Person
) -> None:
    own = bob.dataset(("dog.png", uploads.picture()), ("dog.txt", b"a dog"))

    def sent(ids: dict[str, str]) -> Response:
        spec = SPECS[kind] | filled(names, ids | {"own": own})
        beside = {name: spec.pop(name, None) for name in ("after", "webhook")}
        return bob.post("/v1/jobs", {"kind": kind, "spec": spec, **beside})

    theirs = {name: id for name, id in place.ids.items() if name in str(names)}
    made_up = {name: missing(id) for name, id in theirs.items()}
    answers = []
    for ids in (theirs, made_up):
        answer = sent(ids)
        assert 400 <= answer.status_code < 500, answer.text
        text = re.sub(r"req_\w+", "", answer.text)
        for id in ids.values():
            text = text.replace(id, "…")
        answers.append((answer.status_code, text))
    assert answers[0] == answers[1], "nobody sees that it is there"
    assert bob.get("/v1/jobs").json()["items"] == []


def filled(value: Any, ids: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: filled(each, ids) for name, each in value.items()}
    if isinstance(value, list):
        return [filled(each, ids) for each in value]
    return ids.get(value, value)
