"""Dialogs: what is in them keeps the focus, and belongs to the view that opened it."""

from collections.abc import Callable

from playwright.sync_api import Page, expect

from api.client import Client
from tests.api.live import Live
from tests.page.conftest import PROMPT, Made, Visit

FOCUSED = "document.activeElement.textContent"


def test_arrow_keys_go_on_after_a_click(visit: Visit, made: Made) -> None:
    page = visit.page
    visit.open(f"jobs/{made.trained}", "robot")
    page.locator("film-strip button").first.click()
    facts = page.get_by_role("dialog").locator(".facts")
    page.get_by_role("button", name="Next").click()
    expect(facts).to_contain_text("200")
    assert page.evaluate(FOCUSED) == "Next"
    page.keyboard.press("ArrowRight")
    expect(facts).to_contain_text("300")
    expect(page.get_by_role("button", name="Next")).to_be_disabled()
    page.keyboard.press("ArrowLeft")
    expect(facts).to_contain_text("200")


def test_dialogs_close_with_their_view(visit: Visit, live: Live, made: Made) -> None:
    page = visit.page
    with Client(live.url, live.key) as client:
        job = client.generate({"base": "nano-sdxl", "prompt": PROMPT}, name="left alone")
        visit.open(f"jobs/{job['id']}", "left alone")
        page.get_by_role("button", name="Cancel").click()
        page.get_by_role("dialog").wait_for()
        page.go_back()
        page.get_by_role("heading", level=1, name="Jobs", exact=True).wait_for()
        expect(page.get_by_role("dialog")).to_have_count(0)
        assert client.job(job["id"])["state"] == "queued"


def test_toasts_are_on_top(visit: Visit, made: Made) -> None:
    page = visit.page
    page.route("**/link", lambda route: route.fulfill(status=404, json={"detail": "It is gone."}))
    visit.open("gallery", "Gallery")
    page.locator(".frame").first.click()
    page.get_by_role("button", name="Download").click()
    page.get_by_text("It is gone.").wait_for()
    page.get_by_role("button", name="Dismiss").click(timeout=5_000)
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.locator("body > #toasts")).to_have_count(1)
    page.unroute_all()


def test_a_key_that_no_header_carries_is_refused(
    visitor: Callable[..., Visit], live: Live, made: Made
) -> None:
    page = visitor(live.url).page
    page.goto(f"{live.url}/#key=stillroom_%C3%A9")
    _give(page, "stillroom_é")
    expect(page.get_by_role("alert")).to_contain_text("plain ASCII")
    _give(page, live.key)
    page.get_by_role("listitem").first.wait_for()


def _give(page: Page, key: str) -> None:
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Key", exact=True).fill(key)
    dialog.get_by_role("button", name="Sign in").click()
