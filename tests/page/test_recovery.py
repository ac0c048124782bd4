"""What failed for a moment is there in the next; what has the focus keeps it."""

from playwright.sync_api import Page, Route, expect

from tests.page.conftest import Made, Visit

BUSY = {"code": "unavailable", "detail": "Try again in a moment.", "retry_after": 1}
NOTED = "Failed to load resource: the server responded with a status of 503"


def test_a_view_that_could_not_be_shown_comes_back(visit: Visit, made: Made) -> None:
    _fail_first(visit.page, "**/v1/artifacts?*")
    visit.page.goto(f"{visit.url}/#/gallery")
    expect(visit.page.get_by_text("Try again in a moment.").first).to_be_visible()
    visit.page.get_by_role("heading", name="Gallery").wait_for()
    _forget_refusals(visit)


def test_a_picture_that_failed_comes_back(visit: Visit, made: Made) -> None:
    _fail_first(visit.page, "**/content")
    visit.open(f"jobs/{made.trained}", "robot")
    for canvas in visit.page.locator("film-strip canvas").all():
        expect(canvas).to_have_js_property("width", 64)
    _forget_refusals(visit)


def test_what_a_job_made_is_asked_for_again(visit: Visit, made: Made) -> None:
    page = visit.page
    visit.open("gallery", "Gallery")
    asked: list[str] = []

    def hear(route: Route) -> None:
        asked.append(route.request.url)
        if len(asked) == 2:  # the first shows the view, the second is for an event of its stream
            route.fulfill(status=503, json=BUSY)
        else:
            route.continue_()

    page.route(f"**/v1/jobs/{made.trained}/artifacts*", hear)
    with page.expect_response(lambda answer: answer.status == 503):
        visit.open(f"jobs/{made.trained}", "robot")
    page.wait_for_event("response", lambda answer: answer.ok and "/artifacts" in answer.url)
    _forget_refusals(visit)


def test_a_loss_of_nothing_has_a_curve(visit: Visit, made: Made) -> None:
    page = visit.page
    told = {"step": [10, 20], "loss": [0.0, 0.0], "terms": {}}
    page.route("**/metrics", lambda route: route.fulfill(json=told))
    page.route("**/events*", lambda route: route.fulfill(json={"items": [], "next_after": 0}))
    visit.open(f"jobs/{made.trained}", "robot")
    page.locator("loss-curve polyline").first.wait_for(state="attached")
    assert "NaN" not in page.locator("loss-curve svg").inner_html()
    page.unroute_all()


def test_a_filter_keeps_the_focus(visit: Visit, made: Made) -> None:
    page = visit.page
    state = page.get_by_label("State")
    state.focus()
    for chosen in ("queued", "running"):
        page.keyboard.press("ArrowDown")
        expect(state).to_have_value(chosen)
        expect(state).to_be_focused()
        page.wait_for_function(f"location.hash.includes('{chosen}')")
    page.locator(".job-row").first.wait_for()
    expect(state).to_be_focused()


def _fail_first(page: Page, url: str) -> None:
    page.route(url, lambda route: route.fulfill(status=503, json=BUSY), times=1)


def _forget_refusals(visit: Visit) -> None:
    visit.page.unroute_all()
    visit.complaints[:] = [each for each in visit.complaints if not each.startswith(NOTED)]
