"""Five thousand jobs are a list like any other: few rows of it are in the document."""

from collections.abc import Callable

from playwright.sync_api import expect

from core.owners.service import ADMIN
from tests.api.live import Live
from tests.page.conftest import Visit
from tests.support.backlog import fill

JOBS = 5_000
MAX_NODES = 1_500
TO_THE_END = """async jobs => {
    let most = 0;
    for (;;) {
        scrollTo(0, document.documentElement.scrollHeight);
        await new Promise(requestAnimationFrame);
        most = Math.max(most, document.querySelectorAll("*").length);
        const rows = document.querySelectorAll(".job-row");
        if (rows[rows.length - 1].ariaPosInSet === String(jobs)) return most;
    }
}"""
"""Scrolls on and on; the most elements that there were at a time."""


def test_the_last_of_them_is_reached(lone: Live, visitor: Callable[..., Visit]) -> None:
    fill(lone.app.state.database, JOBS, ADMIN)
    visit = visitor(lone.url)
    page = visit.page
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    visit.sign_in(lone.key)
    page.get_by_role("listitem").first.wait_for()
    expect(page.get_by_text("5,000 jobs waiting")).to_be_visible()
    assert all("cursor=" not in path for path in asked), "nobody has scrolled yet"
    assert page.evaluate(TO_THE_END, JOBS) <= MAX_NODES
    page.evaluate("scrollTo(0, 0)")
    expect(page.get_by_role("listitem").first).to_have_attribute("aria-posinset", "1")
    expect(page.get_by_role("listitem").first).to_have_attribute("aria-setsize", str(JOBS))
