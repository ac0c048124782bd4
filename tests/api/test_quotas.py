"""Limits of one owner, as a client meets them: 429 with usage, limit and a way out."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from api.main import create_app
from core.config import Settings
from core.pictures import cleaning
from tests.api.conftest import Person, Server
from tests.support import loras, uploads

DRAWING = {"kind": "generate", "spec": {"base": "nano-ssd-1b", "prompt": "x"}}
LORA = loras.file_of(loras.spelt(loras.peft, loras.unet_pairs(rank=2)))
PICTURES = [uploads.picture(color=(n, n, n)) for n in range(5)]


@pytest.fixture
def tight(tmp_path: Path) -> Iterator[Server]:
    """A server that keeps one LoRA and two pictures of everybody."""
    limit = len(LORA) + stored_bytes(PICTURES[0]) + stored_bytes(PICTURES[1])
    settings = Settings(home=tmp_path, max_stored_bytes=limit, max_queued_jobs=1)
    with TestClient(create_app(settings), base_url="http://localhost") as http:
        yield Server(http, settings)


def stored_bytes(picture: bytes) -> int:
    out = io.BytesIO()
    cleaning.clean(io.BytesIO(picture), "", Settings(), out)
    return len(out.getvalue())


def bring(person: Person, content: bytes = LORA) -> Response:
    return person.post("/v1/artifacts", files={"file": ("dog.safetensors", content)})


def refused(answer: Response, code: str) -> str:
    assert (answer.status_code, answer.json()["code"]) == (429, code)
    assert answer.headers["Retry-After"] == str(answer.json()["retry_after"])
    detail: str = answer.json()["detail"]
    return detail


def test_a_lora_too_many(tight: Server) -> None:
    ann, bob = tight.person("read", "write"), tight.person("read", "write")
    assert bring(ann).status_code == 201
    assert bring(ann).status_code == 201  # the same bytes are there already
    other = loras.file_of(loras.spelt(loras.peft, loras.unet_pairs(rank=2, seed=5)))
    detail = refused(bring(ann, other), "too_many_bytes")
    for number in (len(LORA), len(other), tight.settings.max_stored_bytes):
        assert f"{number:,} bytes" in detail
    assert bring(bob).status_code == 201
    assert len(list(tight.settings.blobs_path.rglob("*.safetensors"))) == 2


def test_pictures_too_many(tight: Server) -> None:
    ann = tight.person("read", "write")
    assert bring(ann).status_code == 201
    dataset = ann.dataset()
    for n, picture in enumerate(PICTURES[:2]):
        assert ann.upload(dataset, (f"{n}.png", picture)).status_code == 201
    detail = refused(ann.upload(dataset, ("2.png", PICTURES[2])), "too_many_bytes")
    assert "Delete what you no longer need" in detail
    again = ann.upload(dataset, ("0.png", PICTURES[0]), ("0.txt", b"a dog"))
    assert again.status_code == 201  # what adds nothing is taken
    refused(ann.post("/v1/jobs", DRAWING), "too_many_bytes")
    assert len(list(tight.settings.blobs_path.rglob("*.png"))) == 2


def test_a_picture_counts_as_what_it_takes(tight: Server) -> None:
    """Four million black pixels are 34 bytes as sent, and 50,000 once stored."""
    ann = tight.person("read", "write")
    assert bring(ann).status_code == 201
    bomb = uploads.picture("WebP", size=(2000, 2000), color=0, lossless=True, quality=0, method=0)
    assert len(bomb) < stored_bytes(PICTURES[0]) < stored_bytes(bomb) / 100
    refused(ann.upload(ann.dataset(), ("small.webp", bomb)), "too_many_bytes")
    assert list(tight.settings.blobs_path.rglob("*.png")) == []


def test_an_upload_is_kept_whole_or_not_at_all(tight: Server) -> None:
    ann = tight.person("read", "write")
    assert bring(ann).status_code == 201
    dataset = ann.dataset()
    pictures = [(f"{n}.png", picture) for n, picture in enumerate(PICTURES)]
    refused(ann.upload(dataset, *pictures), "too_many_bytes")
    assert ann.get(f"/v1/datasets/{dataset}").json()["images"] == 0
    assert list(tight.settings.blobs_path.rglob("*.png")) == []


def test_waiting_jobs_too_many(tight: Server) -> None:
    ann = tight.person("read", "write")
    assert ann.post("/v1/jobs", DRAWING).status_code == 201
    detail = refused(ann.post("/v1/jobs", DRAWING), "too_many_queued")
    assert detail.startswith("1 of your jobs are waiting and 1 may")
