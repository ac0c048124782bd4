"""Imported pictures over HTTP: seen as uploaded ones are, and never changed or taken away."""

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops

from api.picture_places import PLACES_OF_OWNER
from core.datasets import pixels as pixels_of
from core.datasets.importing import importer
from tests.api.conftest import Person
from tests.support import uploads
from tests.support.server import wait_until


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.jpg").write_bytes(uploads.sideways())
    return tmp_path


@pytest.fixture
def path(ann: Person, folder: Path) -> str:
    """Of its one picture."""
    settings = ann.server.settings.model_copy(update={"import_roots": [folder]})
    report = importer.import_folder(folder, settings, lambda *_: None, name="x", owner=ann.owner)
    images = f"/v1/datasets/{report.dataset}/images"
    return f"{images}/{ann.get(images).json()['items'][0]['id']}"


def pixels(answer: Any) -> Image.Image:
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "image/png"
    image = Image.open(io.BytesIO(answer.content))
    assert not image.getexif()
    return image


def test_pixels_and_thumbnails_are_those_of_an_upload(ann: Person, path: str) -> None:
    sent = ann.dataset(("a.jpg", uploads.sideways()))
    (uploaded,) = ann.get(f"/v1/datasets/{sent}/images").json()["items"]
    same = f"/v1/datasets/{sent}/images/{uploaded['id']}"
    for query in ("", "?size=20"):
        mine, theirs = pixels(ann.get(path + query)), pixels(ann.get(same + query))
        assert ImageChops.difference(mine, theirs).getbbox() is None
    told = ann.get(path, headers={"Accept": "application/json"}).json()
    assert told == uploaded | {"id": told["id"]}


def test_a_part_and_nothing_new(ann: Person, path: str) -> None:
    whole = ann.get(path)
    part = ann.get(path, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, whole.content[10:20])
    again = ann.get(path, headers={"If-None-Match": whole.headers["ETag"]})
    assert again.status_code == 304
    assert ann.get(path, headers={"Range": "bytes=9999999-"}).status_code == 416


@pytest.mark.parametrize("query", ["", "?size=20"])
def test_pictures_at_work_leave_threads_to_others(
    query: str, ann: Person, bob: Person, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fifty that hang: more than there are threads. Then somebody else comes."""
    at_work, go_on = [], threading.Event()
    png = pixels_of.png

    def hang(*given: Any) -> pixels_of.Png:
        at_work.append(1)
        assert go_on.wait(120)
        return png(*given)

    monkeypatch.setattr(pixels_of, "png", hang)
    with ThreadPoolExecutor(51) as people:
        asked = [people.submit(ann.get, path + query) for _ in range(50)]
        try:
            wait_until(lambda: len(at_work) == PLACES_OF_OWNER, 20, "hers are at work")
            assert people.submit(bob.get, "/v1/models").result(20).status_code == 200
            assert len(at_work) == PLACES_OF_OWNER
        finally:
            go_on.set()
        assert {each.result().status_code for each in asked} == {200}


@pytest.mark.parametrize("query", ["", "?size=20"])
def test_a_file_that_is_gone_or_another_is_named_without_its_path(
    query: str, ann: Person, path: str, folder: Path
) -> None:
    (folder / "a.jpg").write_bytes(uploads.picture("JPEG"))
    changed = ann.get(path + query)
    assert (changed.status_code, changed.json()["code"]) == (409, "picture_changed")
    (folder / "a.jpg").unlink()
    gone = ann.get(path + query)
    assert (gone.status_code, gone.json()["code"]) == (404, "picture_gone")
    assert "a.jpg" in gone.json()["detail"]
    assert str(folder) not in changed.text + gone.text


def test_nothing_of_it_changes_and_deleting_it_leaves_the_files(
    ann: Person, bob: Person, path: str, folder: Path
) -> None:
    dataset = path.rpartition("/images")[0]
    assert bob.get(dataset).status_code == bob.get(path).status_code == 404
    told = ann.get(dataset).json()
    assert (told["frozen"], told["images"], told["report"]["ready"]) == (True, 1, True)
    refusals = [
        ann.call("DELETE", path),
        ann.call("PATCH", path, json={"caption": "x"}),
        ann.upload(dataset.rpartition("/")[2], ("b.png", uploads.picture())),
    ]
    assert {each.json()["code"] for each in refusals} == {"dataset_frozen"}
    assert "import them again" in refusals[0].json()["detail"]
    assert ann.call("DELETE", dataset).status_code == 204
    assert ann.get(path).status_code == 404
    assert (folder / "a.jpg").read_bytes() == uploads.sideways()
