"""/v1/artifacts and their bytes."""

import io
import zipfile

import pytest

from tests.api.conftest import Person
from tests.support import uploads

DATA = bytes(range(256)) * 10


def test_an_artifact_is_listed_and_read(ann: Person) -> None:
    artifact = ann.artifact({"dog.safetensors": DATA}, facts={"rank": 8}, base="nano-sdxl")
    row = ann.get(f"/v1/artifacts/{artifact.id}").json()
    assert row == {
        "id": artifact.id,
        "job": None,
        "kind": "lora",
        "role": "lora",
        "name": "my dog",
        "format": "peft",
        "bytes": len(DATA),
        "sha256": uploads.sha256(DATA),
        "base": "nano-sdxl",
        "layout": None,
        "files": [{"path": "dog.safetensors", "bytes": len(DATA), "sha256": uploads.sha256(DATA)}],
        "metadata": {"rank": 8},
        "created_at": row["created_at"],
        "expires_at": None,
    }
    assert ann.get("/v1/artifacts").json() == {"items": [row], "next_cursor": None}
    assert ann.get("/v1/artifacts", params={"kind": "image"}).json()["items"] == []
    assert ann.get("/v1/artifacts", params={"role": "lora"}).json()["items"] == [row]


def test_the_whole_file_with_its_headers(ann: Person) -> None:
    artifact = ann.artifact({"dog.safetensors": DATA})
    answer = ann.get(f"/v1/artifacts/{artifact.id}/content")
    assert (answer.status_code, answer.content) == (200, DATA)
    assert answer.headers["ETag"] == f'"{uploads.sha256(DATA)}"'
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Content-Length"] == str(len(DATA))
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Disposition"].startswith("attachment; ")
    assert 'filename="dog.safetensors"' in answer.headers["Content-Disposition"]


def test_a_part_and_what_has_no_part(ann: Person) -> None:
    path = f"/v1/artifacts/{ann.artifact({'dog.safetensors': DATA}).id}/content"
    part = ann.get(path, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, DATA[10:20])
    assert part.headers["Content-Range"] == f"bytes 10-19/{len(DATA)}"
    assert part.headers["Content-Length"] == "10"
    outside = ann.get(path, headers={"Range": "bytes=99999-"})
    assert (outside.status_code, outside.json()["code"]) == (416, "range_not_satisfiable")
    assert outside.headers["Content-Range"] == f"bytes */{len(DATA)}"
    changed = ann.get(path, headers={"Range": "bytes=10-19", "If-Range": '"other"'})
    assert (changed.status_code, changed.content) == (200, DATA)


def test_a_client_that_has_it_is_told_so(ann: Person) -> None:
    path = f"/v1/artifacts/{ann.artifact({'dog.safetensors': DATA}).id}/content"
    etag = ann.get(path).headers["ETag"]
    same = ann.get(path, headers={"If-None-Match": etag})
    assert (same.status_code, same.content, same.headers["ETag"]) == (304, b"", etag)
    assert ann.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


def test_an_empty_file_is_a_file(ann: Person) -> None:
    path = f"/v1/artifacts/{ann.artifact({'empty.json': b''}).id}/content"
    assert (ann.get(path).status_code, ann.get(path).content) == (200, b"")
    assert ann.get(path, headers={"Range": "bytes=0-0"}).status_code == 416


def test_pictures_are_shown_and_other_files_saved(ann: Person) -> None:
    image = ann.artifact({"samples/a.png": uploads.picture()}, kind="image", format="png")
    answer = ann.get(f"/v1/artifacts/{image.id}/content")
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.headers["Content-Disposition"].startswith('inline; filename="a.png"')
    assert "sandbox" in answer.headers["Content-Security-Policy"]


def test_many_files_are_one_zip_that_is_the_same_each_time(ann: Person) -> None:
    files = {"unet/b.safetensors": DATA, "unet/a.json": b"{}"}
    artifact = ann.artifact(files, kind="unet", name="mein Hund: größer")
    path = f"/v1/artifacts/{artifact.id}/content"
    whole = ann.get(path)
    assert whole.headers["ETag"] == f'"{artifact.sha256}"'
    assert whole.headers["Content-Type"] == "application/zip"
    assert (
        "filename*=UTF-8''mein%20Hund%3A%20gr%C3%B6%C3%9Fer.zip"
        in (whole.headers["Content-Disposition"])
    )
    with zipfile.ZipFile(io.BytesIO(whole.content)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == files
        assert archive.namelist() == sorted(files)
        assert {entry.date_time[0] for entry in archive.infolist()} == {1980}
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
    assert ann.get(path).content == whole.content
    part = ann.get(path, headers={"Range": "bytes=5-50"})
    assert (part.status_code, part.content) == (206, whole.content[5:51])
    assert ann.get(path, headers={"Range": "bytes=999999-"}).status_code == 416
    same = ann.get(path, headers={"If-None-Match": f'"{artifact.sha256}"'})
    assert same.status_code == 304


def test_what_needs_no_bytes_of_a_zip_reads_none(ann: Person) -> None:
    artifact = ann.artifact({"unet/a.json": b"{}", "unet/b.safetensors": DATA}, kind="unet")
    path = f"/v1/artifacts/{artifact.id}/content"
    size = len(ann.get(path).content)
    for file in artifact.files:
        ann.server.store.delete(file["store_key"])
    beyond = ann.get(path, headers={"Range": f"bytes={size}-"})
    assert (beyond.status_code, beyond.headers["Content-Range"]) == (416, f"bytes */{size}")
    assert ann.get(path).json()["code"] == "file_gone"


def test_one_file_of_many(ann: Person) -> None:
    artifact = ann.artifact({"unet/config.json": b"{}", "unet/x.safetensors": DATA})
    path = f"/v1/artifacts/{artifact.id}/files"
    found = ann.get(f"{path}/unet/config.json")
    assert (found.content, found.headers["Content-Type"]) == (b"{}", "application/json")
    assert found.headers["ETag"] == f'"{uploads.sha256(b"{}")}"'
    part = ann.get(f"{path}/unet/x.safetensors", headers={"Range": "bytes=-1"})
    assert part.content == DATA[-1:]


@pytest.mark.parametrize(
    "name", ["nothing", "unet", "../../stillroom.db", "%2e%2e/%2e%2e/admin.key", "/etc/passwd"]
)
def test_only_names_of_the_artifact_are_files(name: str, ann: Person) -> None:
    artifact = ann.artifact({"unet/config.json": b"{}"})
    assert ann.get(f"/v1/artifacts/{artifact.id}/files/{name}").status_code == 404


def test_another_owner_finds_nothing(ann: Person, bob: Person) -> None:
    artifact = ann.artifact({"dog.safetensors": DATA})
    for path in ("", "/content", "/files/dog.safetensors"):
        refused = bob.get(f"/v1/artifacts/{artifact.id}{path}")
        assert (refused.status_code, refused.json()["code"]) == (404, "not_found")
    assert bob.get("/v1/artifacts").json()["items"] == []
    assert ann.get("/v1/artifacts/art_nothing/content").status_code == 404


def test_a_lost_file_is_told_and_leaks_nothing(ann: Person) -> None:
    artifact = ann.artifact({"dog.safetensors": DATA})
    ann.server.store.delete(artifact.files[0]["store_key"])
    answer = ann.get(f"/v1/artifacts/{artifact.id}/content")
    assert (answer.status_code, answer.json()["code"]) == (404, "file_gone")
    assert str(ann.server.settings.root) not in answer.text
    assert answer.json()["request_id"] == answer.headers["X-Request-Id"]
