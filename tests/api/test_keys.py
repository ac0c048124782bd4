"""/v1/keys, and what a key opens."""

import pytest

from tests.api.conftest import Person, Server


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


def test_a_stranger_cannot_make_us_read_an_upload(server: Server) -> None:
    refused = server.http.post(
        "/v1/datasets/dst_x/images", files=[("files", ("a.png", b"x" * 1000))]
    )
    assert refused.status_code == 401
