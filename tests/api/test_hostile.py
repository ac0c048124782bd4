"""What somebody who means harm sends, and what it must not cost."""

import io

import pytest
from PIL import Image

from tests.api.conftest import Person
from tests.support import uploads

RED = uploads.picture()


def test_a_damaged_zip_refuses_itself_and_not_the_picture_beside_it(ann: Person) -> None:
    whole = uploads.zip_of({"a.png": RED, "b.png": RED})
    directory = int.from_bytes(whole[-6:-2], "little") + 1  # where it claims that its table is
    moved = whole[:-6] + directory.to_bytes(4, "little") + whole[-2:]
    sent = ann.upload(ann.dataset(), ("red.png", RED), ("moved.zip", moved))
    assert sent.status_code == 201
    picture, *rest = sent.json()["items"]
    assert picture["problems"] == []
    assert {flaw["code"] for item in rest for flaw in item["problems"]} == {"truncated"}


def test_an_entry_without_a_name(ann: Person) -> None:
    nameless = uploads.zip_of({"a.png": RED}).replace(b"a.png", b"\0.png")
    sent = ann.upload(ann.dataset(), ("red.png", RED), ("nameless.zip", nameless))
    assert sent.status_code == 201


def test_a_jpeg_with_more_scans_than_any_program_writes(ann: Person) -> None:
    bomb = uploads.picture("JPEG", progressive=True)[:-2] + b"\xff\xda\0\2" * 200
    sent = ann.upload(ann.dataset(), ("bomb.jpg", bomb))
    assert sent.status_code == 422
    assert sent.json()["errors"][0]["code"] == "too_many_scans"


def test_an_ordinary_progressive_jpeg_is_taken(ann: Person) -> None:
    out = io.BytesIO()
    Image.effect_noise((256, 256), 80).convert("RGB").save(out, format="JPEG", progressive=True)
    assert ann.upload(ann.dataset(), ("dog.jpg", out.getvalue())).status_code == 201


def test_a_hundred_wrong_fields_get_fifty_sentences(ann: Person) -> None:
    body = {"name": "x", "kind": "instance"} | {f"wrong{n}": n for n in range(100)}
    refused = ann.post("/v1/datasets", body)
    assert refused.status_code == 422
    assert len(refused.json()["errors"]) == 50
    assert "100 things are wrong" in refused.json()["detail"]


MANY = {str(n): str(n) for n in range(9999)}


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"spec": MANY}, "/spec"),
        ({"spec": {"base": {"deep": [MANY]}}}, "/spec"),
        ({"spec": {}, "labels": MANY}, "/labels"),
        ({str(n): n for n in range(9998)}, ""),
    ],
)
def test_thousands_of_fields_are_refused_as_one(
    body: dict[str, object], pointer: str, ann: Person
) -> None:
    refused = ann.post("/v1/jobs", {"kind": "generate"} | body)
    assert refused.status_code == 422
    assert [each["pointer"] for each in refused.json()["errors"]] == [pointer]
    assert len(refused.content) < 1000
    assert "9999 fields" in refused.json()["detail"]


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ("charset=undefined", "UTF-8"),
        ("charset=punycode", "UTF-8"),  # a megabyte of it takes Python minutes
        (";" * 60_000, "60,032 characters"),  # and these half a second, each time they are read
    ],
)
def test_how_a_form_calls_itself_is_not_believed(ann: Person, more: str, word: str) -> None:
    part = b'Content-Disposition: form-data; name="files"; filename="a"'
    refused = ann.call(
        "POST",
        f"/v1/datasets/{ann.dataset()}/images",
        headers={"Content-Type": f"multipart/form-data; boundary=X;{more}"},
        content=b"--X\r\n" + part + b"\r\n\r\na\r\n--X--",
    )
    assert refused.status_code == 400
    assert word in refused.json()["detail"]


def test_a_list_without_end_is_one_mistake(ann: Person) -> None:
    """Each of its numbers is wrong too, and was explained."""
    refused = ann.distill(student={"layers": [11] * 100_000})
    assert refused.status_code == 422
    assert [each["pointer"] for each in refused.json()["errors"]] == ["/spec/student/layers"]


@pytest.mark.parametrize("value", [0, "", []])
def test_a_field_that_is_not_built_takes_no_other_nothing(ann: Person, value: object) -> None:
    spec = {"base": "nano-ssd-1b", "dataset": "dst_x", "buckets": value}
    refused = ann.post("/v1/jobs", {"kind": "fine_tune", "spec": spec})
    assert refused.status_code == 422
    assert "`buckets` is not available" in refused.json()["detail"]


def test_numbers_beyond_any_column(ann: Person) -> None:
    job = ann.post("/v1/jobs", {"kind": "generate", "spec": {"base": "nano-ssd-1b", "prompt": "x"}})
    path = f"/v1/jobs/{job.json()['id']}/events?after={10**30}"
    assert ann.get(path).status_code == 422
