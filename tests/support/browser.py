"""Debian's Chromium, driven by Playwright: a real browser for tests of the page."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
MISSING = "There is no Chromium here: `apt-get install chromium`, and the page is tested too."


def find() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


def need() -> str:
    """Where it is. Without one a test is skipped, but in CI it fails."""
    path = find()
    if path is None and os.environ.get("CI"):
        pytest.fail(MISSING)
    if path is None:
        pytest.skip(MISSING)
    return path


@contextmanager
def launched(path: str) -> Iterator[Browser]:
    # root, as in a container, gets no sandbox of Chromium's; it opens nothing but our own server
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()
