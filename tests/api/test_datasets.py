"""/v1/datasets."""

import io
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from api.picture_places import PLACES, PLACES_OF_OWNER
from core.datasets import intake
from tests.api.conftest import Person
from tests.support import uploads
from tests.support.server import wait_until

RED, BLUE = uploads.picture(), uploads.picture(color=(0, 0, 255))


def test_a_dataset_from_creation_to_pictures(ann: Person) -> None:
    made = ann.post("/v1/datasets", {"name": " my dog ", "kind": "instance"})
    assert made.status_code == 201
    dataset = made.json()
    assert dataset == {
        "id": dataset["id"],
        "name": "my dog",
        "kind": "instance",
        "images": 0,
        "bytes": 0,
        "sha256": None,
        "frozen": False,
        "report": {
            "ready": False,
            "problems": [
                {
                    "code": "dataset_empty",
                    "detail": "There is no picture yet: upload some.",
                    "images": [],
                }
            ],
            "suggestions": [],
        },
        "created_at": dataset["created_at"],
    }
    assert dataset["id"].startswith("dst_")
    assert dataset["created_at"].endswith("Z")

    sent = ann.upload(dataset["id"], ("red.png", RED), ("a.zip", uploads.zip_of({"b.png": BLUE})))
    assert sent.status_code == 201
    answer = sent.json()
    assert [item["filename"] for item in answer["items"]] == ["red.png", "a.zip", "a.zip/b.png"]
    assert answer["items"][0] == {
        "filename": "red.png",
        "id": answer["items"][0]["id"],
        "kind": "image",
        "problems": [],
    }
    assert answer["dataset"]["images"] == 2
    assert answer["dataset"]["report"]["ready"] is True
    assert ann.get(f"/v1/datasets/{dataset['id']}").json() == answer["dataset"]
    assert ann.get("/v1/datasets").json() == {"items": [answer["dataset"]], "next_cursor": None}


def test_images_are_listed_read_and_shown(ann: Person) -> None:
    dataset = ann.dataset(("red.png", RED), ("blue.jpg", uploads.picture("JPEG", (80, 40))))
    path = f"/v1/datasets/{dataset}/images"
    blue, red = ann.get(path).json()["items"]
    assert red == {
        "id": red["id"],
        "filename": "red.png",
        "width": 64,
        "height": 48,
        "bytes": len(RED),
        "sha256": uploads.sha256(RED),
        "caption": None,
        "problems": [
            {
                "code": "small_picture",
                "detail": "red.png has 64 x 48 pixels: a base of 1024 learns a side below 512 "
                "blurred. Send a larger one where there is one.",
            }
        ],
    }
    pixels = ann.get(f"{path}/{blue['id']}")
    assert pixels.headers["Content-Type"] == "image/png"
    assert pixels.headers["X-Content-Type-Options"] == "nosniff"
    assert pixels.headers["Content-Disposition"].startswith('inline; filename="blue.png"')
    assert "sandbox" in pixels.headers["Content-Security-Policy"]
    assert pixels.headers["Cache-Control"] == "private, no-cache"
    assert Image.open(io.BytesIO(pixels.content)).size == (80, 40)
    small = ann.get(f"{path}/{blue['id']}", params={"size": 20})
    assert Image.open(io.BytesIO(small.content)).size == (20, 10)
    for picture, side in ((pixels, {}), (small, {"size": 20})):
        same = {"If-None-Match": picture.headers["ETag"]}
        again = ann.get(f"{path}/{blue['id']}", params=side, headers=same)
        assert (again.status_code, again.content) == (304, b"")
        part = ann.get(f"{path}/{blue['id']}", params=side, headers={"Range": "bytes=1-3"})
        assert (part.status_code, part.content) == (206, b"PNG")
    as_json = ann.get(f"{path}/{red['id']}", headers={"Accept": "application/json"})
    assert as_json.json() == red


def test_lists_come_in_pages(ann: Person) -> None:
    made = [ann.dataset() for _ in range(3)]
    first = ann.get("/v1/datasets", params={"limit": 2}).json()
    second = ann.get("/v1/datasets", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    found = [dataset["id"] for dataset in first["items"] + second["items"]]
    assert found == made[::-1]
    assert second["next_cursor"] is None


def test_an_interrupted_upload_is_sent_again(ann: Person) -> None:
    dataset = ann.dataset(("red.png", RED))
    again = ann.upload(dataset, ("red.png", RED), ("blue.png", BLUE)).json()
    assert [problem["code"] for problem in again["items"][0]["problems"]] == ["already_there"]
    assert again["dataset"]["images"] == 2


def test_another_owner_finds_nothing(ann: Person, bob: Person) -> None:
    dataset = ann.dataset(("red.png", RED))
    image = ann.get(f"/v1/datasets/{dataset}/images").json()["items"][0]["id"]
    others = ann.dataset()
    for person, path in (
        (bob, f"/v1/datasets/{dataset}"),
        (bob, f"/v1/datasets/{dataset}/images"),
        (bob, f"/v1/datasets/{dataset}/images/{image}"),
        (ann, f"/v1/datasets/{others}/images/{image}"),
        (ann, f"/v1/datasets/{dataset}/images/img_nothing"),
        (ann, "/v1/datasets/not%20an%20id"),
        (ann, "/v1/datasets/%00"),
    ):
        refused = person.get(path)
        assert (refused.status_code, refused.json()["code"]) == (404, "not_found"), path
    assert bob.upload(dataset, ("blue.png", BLUE)).status_code == 404
    assert bob.get("/v1/datasets").json()["items"] == []


def test_nothing_usable_points_at_each_file(ann: Person) -> None:
    dataset = ann.dataset()
    refused = ann.upload(
        dataset,
        ("dog.jpg", b"I am a dog."),
        ("big.png", uploads.png_header(20_000, 20_000)),
        ("a.zip", uploads.zip_of({"../x.png": RED})),
    )
    assert refused.status_code == 422
    problem = refused.json()
    assert problem["code"] == "no_usable_file"
    assert [(each["pointer"], each["code"]) for each in problem["errors"]] == [
        ("/files/0", "not_an_image"),
        ("/files/1", "too_many_pixels"),
        ("/files/2", "unsafe_path"),
    ]
    assert ann.get(f"/v1/datasets/{dataset}").json()["images"] == 0


def test_pictures_are_listed_newest_first(ann: Person) -> None:
    dataset = ann.dataset(("red.png", RED))
    ann.upload(dataset, ("blue.png", BLUE), ("green.png", uploads.picture(color=(0, 255, 0))))
    path, names = f"/v1/datasets/{dataset}/images?limit=2", []
    while path:
        page = ann.get(path).json()
        names += [image["filename"] for image in page["items"]]
        cursor = page["next_cursor"]
        path = f"/v1/datasets/{dataset}/images?limit=2&cursor={cursor}" if cursor else ""
    assert names == ["green.png", "blue.png", "red.png"]


def test_an_upload_without_files(ann: Person) -> None:
    dataset = ann.dataset()
    path = f"/v1/datasets/{dataset}/images"
    assert ann.post(path).json()["code"] == "no_usable_file"
    assert ann.post(path, data={"files": "x"}).json()["code"] == "no_usable_file"
    assert ann.post(path, {"files": []}).json()["code"] == "unsupported_media_type"
    wrong_field = ann.post(path, files=[("pictures", ("a.png", RED))])
    assert wrong_field.json()["code"] == "no_usable_file"
    broken = ann.post(path, content=b"--x\r\n", headers={"Content-Type": "multipart/form-data"})
    assert (broken.status_code, broken.json()["code"]) == (400, "malformed_request")


def test_pictures_at_work_leave_threads_and_places_to_others(
    ann: Person, bob: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fifty uploads that hang: more than there are threads. Then somebody else comes."""
    dataset, go_on = ann.dataset(), threading.Event()
    at_work: list[int] = []

    def hang(*_: object, **__: object) -> list[object]:
        at_work.append(1)
        assert go_on.wait(120)
        return []

    monkeypatch.setattr(intake, "receive", hang)
    with ThreadPoolExecutor(59) as people:
        sent = [people.submit(ann.upload, dataset, ("red.png", RED)) for _ in range(50)]
        try:
            wait_until(lambda: len(at_work) == PLACES_OF_OWNER, 20, "her uploads have begun")
            sent += [people.submit(bob.upload, bob.dataset(), ("red.png", RED)) for _ in range(9)]
            wait_until(lambda: len(at_work) == PLACES, 20, "his have, too")
            assert ann.get(f"/v1/datasets/{dataset}").status_code == 200
            assert len(at_work) == PLACES
        finally:
            go_on.set()
        assert {each.result().status_code for each in sent} == {201}


def test_too_many_files_at_once(ann: Person) -> None:
    refused = ann.upload(ann.dataset(), *[(f"{number}.png", b"") for number in range(1001)])
    assert refused.status_code == 400
    assert "1000" in refused.json()["detail"]


def test_a_used_dataset_is_frozen(ann: Person) -> None:
    dataset = ann.dataset(("red.png", RED))
    assert ann.fine_tune(dataset=dataset).status_code == 201
    row = ann.get(f"/v1/datasets/{dataset}").json()
    assert row["frozen"] is True
    assert len(row["sha256"]) == 64
    refused = ann.upload(dataset, ("blue.png", BLUE))
    assert refused.status_code == 409
    assert refused.json()["code"] == "dataset_frozen"
    assert "POST /v1/datasets" in refused.json()["detail"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"kind": "instance"}, "/name"),
        ({"name": "", "kind": "instance"}, "/name"),
        ({"name": "x" * 201, "kind": "instance"}, "/name"),
        ({"name": "a\nb", "kind": "instance"}, "/name"),
        ({"name": "a\ud800", "kind": "instance"}, "/name"),
        ({"name": "dog", "kind": "cats"}, "/kind"),
        ({"name": "dog", "kind": "instance", "owner": "bob"}, "/owner"),
    ],
)
def test_bad_datasets(body: dict[str, object], pointer: str, ann: Person) -> None:
    refused = ann.post(
        "/v1/datasets", content=json.dumps(body), headers={"Content-Type": "application/json"}
    )
    assert refused.status_code == 422
    assert [each["pointer"] for each in refused.json()["errors"]] == [pointer]
