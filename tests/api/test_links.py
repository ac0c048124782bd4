"""Links: /v1/artifacts/{id}/link, and what follows one."""

import io
import logging
import zipfile
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from api.client import Client
from api.main import create_app
from core.artifacts import service as artifacts
from core.artifacts.service import StoredFile
from core.config import Settings
from core.db.models import Artifact, now
from core.owners import service as owners
from tests.api.conftest import Person, Server
from tests.api.live import serving_api
from tests.support import uploads

DATA = bytes(range(256)) * 10


def link(person: Person, artifact: Artifact, expires_in: int = 3600) -> str:
    made = person.post(f"/v1/artifacts/{artifact.id}/link", {"expires_in": expires_in})
    assert made.status_code == 200
    url: str = made.json()["url"]
    return url


def test_a_link_needs_no_key(ann: Person, server: Server) -> None:
    artifact = ann.artifact({"dog.safetensors": DATA})
    made = ann.post(f"/v1/artifacts/{artifact.id}/link", {"expires_in": 3600})
    assert (made.status_code, set(made.json())) == (200, {"url", "expires_at"})
    assert made.headers["Cache-Control"] == "no-store"
    until = datetime.fromisoformat(made.json()["expires_at"])
    assert timedelta(seconds=3590) < until - now() <= timedelta(seconds=3600)
    url = made.json()["url"]
    assert url.startswith(f"http://localhost/links/{artifact.id}?token=")
    assert ann.token not in url
    got = server.http.get(url)
    assert (got.status_code, got.content) == (200, DATA)


def test_the_headers_are_those_of_the_content(ann: Person, server: Server) -> None:
    artifact = ann.artifact({"dog.safetensors": DATA})
    url, content = link(ann, artifact), ann.get(f"/v1/artifacts/{artifact.id}/content")
    got = server.http.get(url)
    own = ("X-Request-Id", "Referrer-Policy")
    assert got.headers["Referrer-Policy"] == "no-referrer"
    assert {name: value for name, value in got.headers.items() if name.title() not in own} == {
        name: value for name, value in content.headers.items() if name.title() not in own
    }
    part = server.http.get(url, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, DATA[10:20])
    outside = server.http.get(url, headers={"Range": "bytes=99999-"})
    assert (outside.status_code, outside.headers["Content-Range"]) == (416, f"bytes */{len(DATA)}")
    same = server.http.get(url, headers={"If-None-Match": got.headers["ETag"]})
    assert (same.status_code, same.content) == (304, b"")


def test_head_tells_the_headers_and_reads_nothing(
    ann: Person, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = link(ann, ann.artifact({"dog.safetensors": DATA}))
    many = link(ann, ann.artifact({"unet/a.json": b"{}", "unet/b.safetensors": DATA}, kind="unet"))
    for each in (url, many):
        got, head = server.http.get(each), server.http.head(each)
        assert (head.status_code, head.content) == (200, b"")
        assert {**head.headers, "x-request-id": ""} == {**got.headers, "x-request-id": ""}
    assert server.http.head(url, headers={"Range": "bytes=0-9"}).headers["Content-Length"] == "10"

    def read(*_: object) -> bytes:
        raise AssertionError("the file is read")

    monkeypatch.setattr(server.store, "open", read)
    assert server.http.head(url).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_nothing_but_reading(method: str, ann: Person, server: Server) -> None:
    url = link(ann, ann.artifact({"dog.safetensors": DATA}))
    refused = server.http.request(method, url)
    assert (refused.status_code, refused.headers["Allow"]) == (405, "GET, HEAD")
    assert server.http.get(url).status_code == 200


def test_pictures_are_saved_too(ann: Person, server: Server) -> None:
    image = ann.artifact({"samples/a.png": uploads.picture()}, kind="image", format="png")
    got = server.http.get(link(ann, image))
    assert got.headers["Content-Type"] == "image/png"
    assert got.headers["Content-Disposition"].startswith('attachment; filename="a.png"')
    assert got.headers["X-Content-Type-Options"] == "nosniff"


def test_many_files_are_one_zip(ann: Person, server: Server) -> None:
    files = {"unet/a.json": b"{}", "unet/b.safetensors": DATA}
    got = server.http.get(link(ann, ann.artifact(files, kind="unet")))
    with zipfile.ZipFile(io.BytesIO(got.content)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == files


@pytest.mark.parametrize("expires_in", [59, 604_801, 0, -1, None, "an hour", 1e300, 60.5])
def test_how_long_is_bounded(expires_in: object, ann: Person) -> None:
    artifact = ann.artifact({"dog.safetensors": DATA})
    refused = ann.post(f"/v1/artifacts/{artifact.id}/link", {"expires_in": expires_in})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/expires_in"
    assert ann.post(f"/v1/artifacts/{artifact.id}/link", {}).status_code == 422


def test_who_may_read_may_link(ann: Person, bob: Person, server: Server) -> None:
    artifact = ann.artifact({"dog.safetensors": DATA})
    path, body = f"/v1/artifacts/{artifact.id}/link", {"expires_in": 60}
    assert server.person("read", owner=ann.owner).post(path, body).status_code == 200
    assert server.person("write", owner=ann.owner).post(path, body).status_code == 403
    assert bob.post(path, body).json()["code"] == "not_found"
    assert ann.post("/v1/artifacts/art_nothing/link", body).status_code == 404
    assert server.http.post(path, json=body).status_code == 401


@pytest.mark.parametrize("query", ["", "?token=", "?token=x", "?token=%00", "?token=a&token=b"])
def test_what_is_no_link_opens_nothing(query: str, ann: Person, server: Server) -> None:
    artifact = ann.artifact({"dog.safetensors": DATA})
    refused = server.http.get(f"/links/{artifact.id}{query}")
    assert refused.status_code == (422 if "%00" in query else 404)
    assert refused.headers["Cache-Control"] == "no-store"


def test_a_stranger_learns_nothing_from_refusals(ann: Person, server: Server) -> None:
    url = link(ann, ann.artifact({"dog.safetensors": DATA}))
    place, _, token = url.partition("?token=")
    refused = (f"{place}?token={'0' * len(token)}", f"http://localhost/links/art_x?token={token}")
    told = [server.http.get(each).json() for each in refused]
    assert {(each["code"], each["detail"]) for each in told} == {("not_found", told[0]["detail"])}


def test_links_of_a_deleted_key_are_gone(ann: Person, server: Server) -> None:
    artifact, other = (
        ann.artifact({"dog.safetensors": DATA}),
        server.person("read", owner=ann.owner),
    )
    lost, kept = link(other, artifact), link(ann, artifact)
    with server.database.write() as session:
        owners.delete(session, owners.authenticate(session, other.token).key_id)
    assert server.http.get(lost).status_code == 404
    assert server.http.get(kept).status_code == 200


def test_the_address_is_the_one_that_others_know(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, public_url="https://studio.example/stillroom/")
    with TestClient(create_app(settings), base_url="http://localhost") as http:
        ann = Server(http, settings).person("read")
        url = link(ann, ann.artifact({"dog.safetensors": DATA}))
    assert url.startswith("https://studio.example/stillroom/links/art_")


def test_no_log_line_holds_a_token(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Over a real socket, at the level that says most, and when it fails, too."""
    with (
        caplog.at_level("DEBUG"),
        serving_api(tmp_path) as live,
        Client(live.url, live.key) as client,
    ):
        data: dict[str, Any] = {"kind": "lora", "role": "lora", "name": "dog", "format": "peft"}
        live.app.state.store.put_bytes("a/b", DATA)
        stored = [StoredFile("dog.safetensors", len(DATA), uploads.sha256(DATA), "a/b")]
        with live.app.state.database.write() as session:
            made = artifacts.record(session, owner="admin", job_id=None, files=stored, **data)
        url = client.link(made.id, 60)["url"]
        token = url.partition("?token=")[2]
        assert httpx.get(url).content == DATA
        assert httpx.get(f"{url}0").status_code == 404
        assert httpx.post(url).status_code == 405
        live.app.state.database.read = None  # whatever fails there
        assert httpx.get(url).status_code == 500
    client_side = ("httpx", "httpcore")
    ours = [each for each in caplog.records if not each.name.startswith(client_side)]
    told = "\n".join(map(logging.Formatter().format, ours))
    assert f"GET /links/{made.id}" in told
    assert "a request failed" in told
    assert token not in told
    assert token[-64:] not in told
