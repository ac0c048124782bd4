"""/v1/keys, and what a key opens."""

from typing import Any

import anyio
import pytest

from tests.api.conftest import Person, Server
from tests.support import uploads


def test_a_key_is_shown_once_and_works(admin: Person, server: Server) -> None:
    made = admin.post("/v1/keys", {"name": "laptop", "owner": "carol"})
    assert made.status_code == 201
    key = made.json()
    assert (key["owner"], key["scopes"]) == ("carol", ["read", "write"])
    listed = admin.get("/v1/keys").json()["items"]
    assert {name: value for name, value in key.items() if name != "key"} in listed
    assert all("key" not in each for each in listed)

    carol = Person(server, "carol", key["key"])
    assert carol.get("/v1/jobs").status_code == 200
    gone = admin.call("DELETE", f"/v1/keys/{key['id']}")
    assert (gone.status_code, gone.content) == (204, b"")
    assert carol.get("/v1/jobs").status_code == 401
    assert admin.call("DELETE", f"/v1/keys/{key['id']}").status_code == 404


def test_the_scope_admin_alone_is_enough(server: Server) -> None:
    made = server.person("admin").post("/v1/keys", {"name": "laptop", "scopes": ["read"]})
    assert made.status_code == 201


def test_keys_are_for_administrators(ann: Person) -> None:
    refused = ann.get("/v1/keys")
    assert refused.status_code == 403
    assert refused.json()["code"] == "insufficient_scope"
    assert 'error="insufficient_scope"' in refused.headers["WWW-Authenticate"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": "x", "scopes": []},
        {"name": "x", "scopes": ["all"]},
        {"name": "x", "owner": "a\u0000b"},
        {"name": "x", "more": 1},
    ],
)
def test_bad_keys(body: dict[str, object], admin: Person) -> None:
    assert admin.post("/v1/keys", body).status_code == 422


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic YTpi", "wrong"]
)
def test_without_a_valid_key_nothing_opens(header: str | None, server: Server) -> None:
    headers = {} if header is None else {"Authorization": header}
    refused = server.http.get("/v1/jobs", headers=headers)
    assert refused.status_code == 401
    assert refused.json()["code"] == "unauthorized"
    assert refused.headers["WWW-Authenticate"].startswith("Bearer")


def test_each_scope_opens_its_own(server: Server) -> None:
    reader, writer = server.person("read"), server.person("write")
    body = {"name": "dog", "kind": "instance"}
    assert reader.get("/v1/datasets").status_code == 200
    assert reader.post("/v1/datasets", body).status_code == 403
    assert writer.post("/v1/datasets", body).status_code == 201
    assert writer.get("/v1/datasets").status_code == 403


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/datasets/dst_x/images", "/v1/nothing"])
@pytest.mark.parametrize("authorization", [[], [(b"authorization", b"Bearer wrong")]])
def test_nothing_that_a_stranger_sends_is_read(
    path: str, authorization: list[tuple[bytes, bytes]], server: Server
) -> None:
    status, _ = asked(server, path, [(b"content-type", b"application/json"), *authorization])
    assert status == 401


def asked(server: Server, path: str, headers: list[tuple[bytes, bytes]]) -> tuple[int, bytes]:
    """Status and body of the answer to a POST whose own body must not be asked for."""
    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": path}
    scope |= {"headers": [(b"host", b"localhost"), *headers]}
    scope |= {"query_string": b"", "asgi": {"version": "3.0"}, "http_version": "1.1"}
    sent: list[Any] = []

    async def receive() -> dict[str, str]:
        raise AssertionError("the body is read")

    async def send(message: Any) -> None:
        sent.append(message)

    anyio.run(server.app, scope, receive, send)
    return sent[0]["status"], sent[1]["body"]


def test_an_upload_to_a_dataset_that_takes_none_is_not_read(
    ann: Person, bob: Person, server: Server
) -> None:
    frozen = ann.dataset(("dog.png", uploads.picture()))
    assert ann.fine_tune(dataset=frozen).status_code == 201
    for dataset, status in ((frozen, 409), (bob.dataset(), 404)):
        headers = [
            (b"content-type", b"multipart/form-data; boundary=x"),
            (b"authorization", f"Bearer {ann.token}".encode()),
        ]
        assert asked(server, f"/v1/datasets/{dataset}/images", headers)[0] == status
