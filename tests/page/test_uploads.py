"""Pictures and captions on their way to a dataset: all of them arrive, or a line says why not."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import FilePayload, Page, expect

from api.client import Client
from tests.api.live import Live, serving_api
from tests.page.conftest import Visit
from tests.support import pictures

LINES = 200
"""That are kept, failed or not."""

Visitor = Callable[..., Visit]


def test_captions_go_in_requests_that_the_server_takes(tmp_path: Path, visitor: Visitor) -> None:
    with serving_api(tmp_path / "home", reap_seconds=3600, max_files=200) as live:
        visit = _on_new_dataset(visitor, live)
        (path,) = pictures.write(tmp_path, 1)
        table = json.dumps({"file_name": "0.png", "text": "as the table says"}).encode()
        captions = [
            _file(f"{number}.txt", b"as its own file says") for number in range(200, -1, -1)
        ]
        files = [_file("metadata.jsonl", table), *captions, _file("0.png", path.read_bytes())]
        visit.page.get_by_label("Add pictures").set_input_files(files)
        expect(visit.page.locator("#said")).to_have_text("1 picture are there")
        expect(visit.page.get_by_label("Caption of 0.png")).to_have_value("as the table says")


def test_a_dropped_folder_keeps_its_names(live: Live, visitor: Visitor, tmp_path: Path) -> None:
    folder = tmp_path / "dogs"
    for number, name in enumerate(("rex", "sam")):
        (path,) = pictures.write(folder / name, 1)
        pictures.draw(number).save(path)
        path.with_suffix(".txt").write_text(f"{name}, a dog")
    (folder / ".hidden").write_text("not for others")
    visit = visitor(live.url)
    page = visit.page
    visit.sign_in(live.key)
    visit.open("datasets", "Datasets")
    _drop(page, folder)
    page.get_by_role("heading", name="dogs").wait_for()
    for name in ("rex", "sam"):
        expect(page.get_by_label(f"Caption of dogs/{name}/0.png")).to_have_value(f"{name}, a dog")
    expect(page.locator(".uploads [data-mood=bad]")).to_have_count(0)


def test_what_failed_has_a_line_however_many_there_were(
    live: Live, visitor: Visitor, tmp_path: Path
) -> None:
    (path,) = pictures.write(tmp_path, 1)
    same = [_file(f"{number}.png", path.read_bytes()) for number in range(LINES + 5)]
    visit = _on_new_dataset(visitor, live)
    page = visit.page
    page.get_by_label("Add pictures").set_input_files([*same, _file("bad.png", b"no picture")])
    expect(page.locator("#said")).to_have_text("1 picture are there")
    expect(page.locator(".uploads li")).to_have_count(LINES + 1)
    expect(page.locator(".uploads [data-mood=bad]")).to_have_count(1)
    expect(page.locator(".uploads [data-mood=bad]")).to_contain_text("bad.png")


def test_an_upload_that_came_too_often_waits(live: Live, visitor: Visitor, tmp_path: Path) -> None:
    visit = _on_new_dataset(visitor, live)
    told = {"code": "too_often", "detail": "This key may send 3 requests.", "retry_after": 1}
    _answer_first(visit.page, status=429, body=json.dumps(told))
    visit.page.get_by_label("Add pictures").set_input_files(pictures.write(tmp_path, 1))
    expect(visit.page.locator(".uploads li")).to_contain_text("This key may send 3 requests.")
    expect(visit.page.locator(".card")).to_have_count(1)


@pytest.mark.parametrize(
    ("status", "body"), [(200, "<html>"), (429, '{"code": "too_many_bytes", "retry_after": 60}')]
)
def test_an_answer_that_is_no_use_ends_its_line(
    status: int, body: str, live: Live, visitor: Visitor, tmp_path: Path
) -> None:
    visit = _on_new_dataset(visitor, live)
    _answer_first(visit.page, status=status, body=body)
    visit.page.get_by_label("Add pictures").set_input_files(pictures.write(tmp_path, 1))
    expect(visit.page.locator(".uploads [data-mood=bad]")).to_contain_text(f"status {status}")


def _on_new_dataset(visitor: Visitor, live: Live) -> Visit:
    with Client(live.url, live.key) as client:
        dataset = client.create_dataset("these", kind="captioned")["id"]
    visit = visitor(live.url)
    visit.sign_in(live.key)
    visit.open(f"datasets/{dataset}", "these")
    return visit


def _file(name: str, content: bytes) -> FilePayload:
    return {"name": name, "mimeType": "application/octet-stream", "buffer": content}


def _answer_first(page: Page, *, status: int, body: str) -> None:
    """As somebody between the two might: the first upload alone."""
    page.route(
        "**/images",
        lambda route: route.fulfill(status=status, body=body),
        times=1,
    )


def _drop(page: Page, folder: Path) -> None:
    """With the browser's own hands: no script can make a folder to drop."""
    box = page.locator(".drop-zone").bounding_box()
    assert box
    session = page.context.new_cdp_session(page)
    for what in ("dragEnter", "dragOver", "drop"):
        data = {"items": [], "files": [str(folder)], "dragOperationsMask": 1}
        at = {"x": box["x"] + 10, "y": box["y"] + 10}
        session.send("Input.dispatchDragEvent", {"type": what, "data": data, **at})
