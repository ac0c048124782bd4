"""Lists that are told a page at a time, while rows come, go and change."""

import io
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Locator, Page, Route, expect

from api.client import Client
from core.artifacts import service as artifacts
from core.artifacts.service import StoredFile
from core.ids import new_id
from core.owners.service import ADMIN
from tests.api.live import Live
from tests.page.conftest import Visit
from tests.support import pictures, uploads
from tests.support.backlog import fill

PAGE = 60
"""Rows of one page, of a dataset and of the gallery."""
TALL = {"width": 1280, "height": 6_000}
TO_THE_END = "scrollTo(0, document.documentElement.scrollHeight)"

Visitor = Callable[..., Visit]


def test_cards_are_those_of_the_rows_after_a_second_upload(
    lone: Live, visitor: Visitor, tmp_path: Path
) -> None:
    first, second, third = pictures.write(tmp_path, 3)
    dataset = _dataset(lone, [first, second])
    visit = _signed_in(visitor, lone)
    page = visit.page
    visit.open(f"datasets/{dataset}", "these")
    page.get_by_label("Add pictures").set_input_files([third])
    cards = page.locator(".card")
    expect(cards).to_have_count(3)
    caption = page.get_by_label("Caption of 0.png")
    caption.fill("a disc")
    with page.expect_response(lambda answer: answer.request.method == "GET"):
        page.keyboard.press("Tab")
    expect(page.locator("#said")).to_have_text("The caption of 0.png is saved")
    expect(caption).to_have_value("a disc")
    page.get_by_role("button", name="Delete 0.png").click()
    expect(page.locator("#said")).to_have_text("0.png is deleted")
    expect(cards).to_have_count(2)


def test_an_upload_overtakes_a_page_of_the_dataset(
    lone: Live, visitor: Visitor, tmp_path: Path
) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(PAGE + 6)]
    for number, path in enumerate(paths):
        pictures.draw(1, width=64 + number).save(path)
    dataset = _dataset(lone, paths[1:])
    visit = _signed_in(visitor, lone)
    page = visit.page
    held = _hold_first(page, "**/images?*cursor=*")
    visit.open(f"datasets/{dataset}", "these")
    _scroll_until(page, lambda: bool(held))
    page.get_by_label("Add pictures").set_input_files(paths[0])
    expect(page.locator("#said")).to_have_text(f"{len(paths)} pictures are there")
    held[0].continue_()
    _scroll_until(page, lambda: page.locator(".card").count() == len(paths))


def test_a_tall_screen_is_filled(lone: Live, visitor: Visitor) -> None:
    _put(lone, 2 * PAGE + 10)
    visit = _signed_in(visitor, lone, viewport=TALL)
    visit.open("gallery", "Gallery")
    expect(_tiles(visit.page)).to_have_count(2 * PAGE + 10)


def test_what_came_all_at_once_is_in_the_gallery(lone: Live, visitor: Visitor) -> None:
    _put(lone, 5)
    visit = _signed_in(visitor, lone)
    visit.open("gallery", "Gallery")
    expect(_tiles(visit.page)).to_have_count(5)
    _put(lone, 30)
    expect(_tiles(visit.page)).to_have_count(35)


def test_a_page_of_pictures_is_not_taken_for_one_of_samples(lone: Live, visitor: Visitor) -> None:
    _put(lone, PAGE + 10)
    _put(lone, PAGE + 20, role="sample")
    visit = _signed_in(visitor, lone)
    page = visit.page
    held = _hold_first(page, "**/v1/artifacts?*cursor=*")
    visit.open("gallery", "Gallery")
    _scroll_until(page, lambda: bool(held))
    page.get_by_label("Samples of trainings").check()
    held[0].continue_()
    _scroll_until(page, lambda: _tiles(page).count() == PAGE + 20)


def test_jobs_that_came_all_at_once_are_listed(lone: Live, visitor: Visitor) -> None:
    fill(lone.app.state.database, 60, ADMIN)
    visit = _signed_in(visitor, lone)
    rows = visit.page.get_by_role("listitem")
    expect(rows.first).to_have_attribute("aria-setsize", "50")
    fill(lone.app.state.database, 140, ADMIN)
    expect(visit.page.get_by_text("200 jobs waiting")).to_be_visible()
    _scroll_until(visit.page, lambda: rows.first.get_attribute("aria-setsize") == "200")


def _signed_in(visitor: Visitor, live: Live, **about: object) -> Visit:
    visit = visitor(live.url, **about)
    visit.sign_in(live.key)
    return visit


def _dataset(live: Live, paths: list[Path]) -> str:
    with Client(live.url, live.key) as client:
        dataset = client.create_dataset("these")["id"]
        client.upload(dataset, paths)
    return dataset


def _put(live: Live, count: int, *, role: str = "image") -> None:
    """So many pictures at once."""
    out = io.BytesIO()
    pictures.draw(1).save(out, "PNG")
    content, key = out.getvalue(), f"test/{new_id('art')}"
    live.app.state.store.put_bytes(key, content)
    file = StoredFile("drawn.png", len(content), uploads.sha256(content), key)
    facts = {"prompt": "a disc", "seed": 1} | ({"step": 10} if role == "sample" else {})
    with live.app.state.database.write() as session:
        for _ in range(count):
            artifacts.record(
                session,
                owner=ADMIN,
                job_id=None,
                kind="image",
                role=role,
                name="drawn.png",
                format="png",
                files=[file],
                facts=facts,
            )


def _tiles(page: Page) -> Locator:
    return page.locator(".tiles > li")


def _hold_first(page: Page, url: str) -> list[Route]:
    """The first request to ``url``, once it is there, for the test to let go of."""
    held: list[Route] = []

    def hear(route: Route) -> None:
        if held:
            route.continue_()
        else:
            held.append(route)

    page.route(url, hear)
    return held


def _scroll_until(page: Page, is_so: Callable[[], bool]) -> None:
    for _ in range(100):
        page.evaluate(TO_THE_END)
        page.wait_for_timeout(100)
        if is_so():
            return
    raise AssertionError("it never was")
