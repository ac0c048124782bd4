"""The page is for everybody: axe finds nothing serious in any view, in light and in dark, and on a
phone nothing sticks out."""

from collections.abc import Callable
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.api.live import Live
from tests.page.conftest import Made, Visit

PHONE = {"width": 360, "height": 740}
TOO_WIDE = """() => {
    const wide = document.documentElement;
    if (wide.scrollWidth <= wide.clientWidth) return [];
    const sticks = each => each.getBoundingClientRect().right > wide.clientWidth;
    return [...document.querySelectorAll("main *")].filter(sticks).map(each => each.outerHTML);
}"""
"""What sticks out, where the page can be moved sideways."""
UNFOLD = "document.querySelectorAll('details').forEach(each => { each.open = true; })"
GRAVE = ("serious", "critical")


def views(made: Made) -> dict[str, str]:
    """Their headings by what leads there."""
    return {
        "jobs": "Jobs",
        f"jobs/{made.trained}": "robot",
        "datasets": "Datasets",
        f"datasets/{made.discs}": "discs",
        f"new/fine_tune?dataset={made.robot}": "New job",
        f"new/generate?lora={made.lora}": "New job",
        "gallery": "Gallery",
        "models": "Models and LoRAs",
        "workers": "Workers",
        "keys": "Keys",
    }


def found_by_axe(visit: Visit, **options: Any) -> list[tuple[str, str]]:
    axe: Any = Axe()
    told = axe.run(visit.page, options={"resultTypes": ["violations"], **options})
    violations = told.response["violations"]
    return [
        (each["id"], node["html"])
        for each in violations
        if each["impact"] in GRAVE
        for node in each["nodes"]
    ]


def test_axe_finds_nothing_serious(visitor: Callable[..., Visit], live: Live, made: Made) -> None:
    # axe is a script of somebody else's: without the policy's leave it could not run
    visit = visitor(live.url, bypass_csp=True, reduced_motion="reduce")
    visit.sign_in(live.key)
    for view, heading in views(made).items():
        visit.open(view, heading)
        visit.page.evaluate(UNFOLD)
        assert found_by_axe(visit) == [], view
        visit.page.emulate_media(color_scheme="dark")
        assert found_by_axe(visit, runOnly=["color-contrast"]) == [], f"{view} in the dark"
        visit.page.emulate_media(color_scheme="light")


def test_axe_finds_nothing_serious_before_a_jobs_log_is_there(
    visitor: Callable[..., Visit], live: Live, made: Made
) -> None:
    visit = visitor(live.url, bypass_csp=True, reduced_motion="reduce")
    visit.page.route("**/logs*", lambda route: None)  # never answered
    visit.sign_in(live.key)
    visit.open(f"jobs/{made.trained}", "robot")
    visit.page.evaluate(UNFOLD)
    assert found_by_axe(visit) == []


def test_axe_finds_nothing_serious_in_dialogs(
    visitor: Callable[..., Visit], live: Live, made: Made
) -> None:
    visit = visitor(live.url, bypass_csp=True)
    visit.page.goto(live.url)
    visit.page.get_by_role("dialog").wait_for()
    assert found_by_axe(visit) == []
    visit.sign_in(live.key)
    visit.open("gallery", "Gallery")
    visit.page.locator(".frame").first.click()
    expect(visit.page.get_by_role("dialog").locator(".facts")).to_contain_text("Guidance")
    assert found_by_axe(visit) == []


def test_a_phone_shows_all_of_it(visitor: Callable[..., Visit], live: Live, made: Made) -> None:
    visit = visitor(live.url, viewport=PHONE)
    visit.sign_in(live.key)
    for view, heading in views(made).items():
        visit.open(view, heading)
        assert visit.page.evaluate(TOO_WIDE) == [], view
        expect(visit.page.get_by_role("link", name="Gallery")).to_be_in_viewport()
