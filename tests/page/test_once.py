"""What is asked for is asked once, and answers that come late pull nobody away."""

import pytest
from playwright.sync_api import Page, Route, expect

from api.client import Client
from tests.api.live import Live
from tests.page.conftest import PROMPT, Made, Visit


def test_a_double_click_retries_once(visit: Visit, live: Live, made: Made) -> None:
    page = visit.page
    job = _cancelled(live, "clicked twice")
    held = _hold(page, "**/retry")
    visit.open(f"jobs/{job}", "clicked twice")
    retry = page.get_by_role("button", name="Retry")
    retry.dblclick()
    page.wait_for_timeout(600)  # past the browser's idea of a double click
    retry.click()
    page.wait_for_timeout(100)
    assert len(held) == 1
    held[0].continue_()
    expect(page.get_by_role("link", name=job)).to_be_visible()
    page.unroute_all()


def test_the_same_is_drawn_again_once(visit: Visit, live: Live, made: Made) -> None:
    page = visit.page
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.method + request.url))
    visit.open("new/generate", "New job")
    page.get_by_label("Prompt needed").fill(PROMPT)
    page.get_by_role("button", name="Draw a picture").click()
    expect(page.locator("drawn-here")).to_contain_text("in the queue")
    with Client(live.url, live.key) as client:
        drawn = next(client.list_jobs(kind="generate"))["id"]
        page.route(f"**/v1/jobs/{drawn}", lambda route: _say_succeeded(route))
    page.get_by_role("button", name="Draw again with the same seed").dblclick()
    expect(page.locator("drawn-here .round")).to_have_count(2)
    page.wait_for_timeout(200)
    assert asked.count(f"POST{live.url}/v1/jobs") == 2
    page.unroute_all()


@pytest.mark.parametrize("leaving", [True, False])
def test_a_late_answer_pulls_nobody_away(
    leaving: bool, visit: Visit, live: Live, made: Made
) -> None:
    page = visit.page
    job = _cancelled(live, "answered late")
    held = _hold(page, "**/retry")
    visit.open(f"jobs/{job}", "answered late")
    page.get_by_role("button", name="Retry").click()
    page.wait_for_timeout(100)
    if leaving:
        visit.open("gallery", "Gallery")
    held[0].continue_()
    if leaving:
        expect(page.get_by_text("The new job is queued")).to_be_visible()
        assert page.url.endswith("#/gallery")
    else:
        expect(page.get_by_role("link", name=job)).to_be_visible()
    page.unroute_all()


def test_a_key_is_shown_whatever_happens_to_the_list(visit: Visit, live: Live) -> None:
    page = visit.page
    visit.open("keys", "Keys")
    held = _hold(page, "**/v1/keys?*", "GET")
    _create_key(page, "shown first")
    expect(page.get_by_role("dialog").get_by_label("The key")).not_to_have_value("")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.wait_for_timeout(100)
    held[0].continue_()
    expect(page.get_by_text("shown first")).to_be_visible()
    page.unroute_all()


def test_a_key_whose_answer_got_lost_is_said_to_be(visit: Visit, live: Live) -> None:
    page = visit.page
    visit.open("keys", "Keys")
    lost: list[Route] = []

    def lose(route: Route) -> None:
        if route.request.method == "POST" and not lost:
            lost.append(route)
            route.fetch()
            route.abort()
        else:
            route.continue_()

    page.route("**/v1/keys", lose)
    _create_key(page, "lost")
    expect(page.get_by_role("dialog")).to_contain_text("delete it and create another")
    page.keyboard.press("Escape")
    page.unroute_all()
    visit.complaints[:] = [each for each in visit.complaints if "net::ERR" not in each]


def _create_key(page: Page, name: str) -> None:
    page.get_by_label("Name").fill(name)
    page.get_by_role("button", name="Create key").click()


def _cancelled(live: Live, name: str) -> str:
    with Client(live.url, live.key) as client:
        job = client.generate({"base": "nano-sdxl", "prompt": PROMPT}, name=name)
        return client.cancel(job["id"])["id"]


def _hold(page: Page, url: str, method: str = "POST") -> list[Route]:
    held: list[Route] = []

    def hear(route: Route) -> None:
        if route.request.method == method:
            held.append(route)
        else:
            route.continue_()

    page.route(url, hear)
    return held


def _say_succeeded(route: Route) -> None:
    answer = route.fetch()
    route.fulfill(response=answer, json=answer.json() | {"state": "succeeded"})
