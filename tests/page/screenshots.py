"""`make screenshots`: each view in light, dark and narrow, of a home with real work in it."""

import io
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page

from api.client import Client
from tests.page.lived_in import furnish, keep_busy
from tests.support.browser import MISSING, find, launched
from tests.support.server import Server, running

OUT = Path(__file__).parents[2] / "docs" / "screenshots"
QUALITY = 88
WIDE = {"width": 1280, "height": 800}
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"viewport": WIDE},
    "dark": {"viewport": WIDE, "color_scheme": "dark"},
    "narrow": {"viewport": {"width": 390, "height": 844}},
}


def main() -> None:
    path = find()
    if path is None:
        sys.exit(MISSING)
    OUT.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder) / "home") as server,
        server.client() as client,
        launched(path) as browser,
    ):
        furnish(client, Path(folder))
        views = _views(client)
        drawing = {"generate": views.pop("generate")}
        for look in LOOKS:
            _take(browser, server, look, drawing)
        keep_busy(client)
        for look in LOOKS:
            _take(browser, server, look, views)


def _views(client: Client) -> dict[str, str]:
    """What leads to each, by its file's name."""
    trained = next(client.list_jobs(kind="fine_tune", state="succeeded"))
    captioned = next(each for each in client.list_datasets() if each["kind"] == "captioned")
    assert trained["result"]
    return {
        "jobs": "jobs",
        "job": f"jobs/{trained['id']}",
        "datasets": "datasets",
        "dataset": f"datasets/{captioned['id']}",
        "new": f"new/fine_tune?job={trained['id']}",
        "generate": f"new/generate?lora={trained['result']['lora']}",
        "gallery": "gallery",
        "models": "models",
        "workers": "workers",
        "keys": "keys",
    }


def _take(browser: Browser, server: Server, look: str, views: dict[str, str]) -> None:
    key = server.settings.admin_key_path.read_text().strip()
    with browser.new_context(reduced_motion="reduce", **LOOKS[look]) as context:
        page = context.new_page()
        page.goto(f"{server.url}/#key={key}")
        for name, view in views.items():
            page.goto(f"{server.url}/#/{view}")
            if name == "generate":
                _draw(page)
            page.wait_for_timeout(1_500)  # for pictures and the first refresh: nothing says so
            _save(page.screenshot(), OUT / f"{name}-{look}.webp")


def _save(png: bytes, path: Path) -> None:
    """A quarter of a PNG's bytes, and few would see it."""
    with Image.open(io.BytesIO(png)) as image:
        image.convert("RGB").save(path, quality=QUALITY, method=6)


def _draw(page: Page) -> None:
    page.get_by_label("Seed").fill("104")
    page.get_by_role("button", name="Draw a picture").click()
    page.get_by_role("button", name="Draw again").wait_for()


if __name__ == "__main__":
    main()
