"""How the page is served: to anybody, from a table of files, under a policy that allows no more."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from api.routes.page import FILES
from tests.api.live import Live

FIRST = {
    *("index.html", "style.css", "icon.svg", "app.js", "api.js", "dom.js", "key.js", "live.js"),
    *("words.js", "pages.js", "views/jobs.js", "elements/toast.js", "elements/dialog.js"),
    *("elements/sign-in.js", "elements/job-row.js", "elements/virtual-list.js"),
}
"""What the first view is made of; the browser's own count is in test_views."""
SCRIPTS = {name: file.content.decode() for name, file in FILES.items() if name.endswith(".js")}


@pytest.fixture
def http(live: Live) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=live.url, trust_env=False) as http:
        yield http


def test_it_opens_without_a_key_and_lets_in_nothing_from_elsewhere(http: httpx.Client) -> None:
    page = http.get("/")
    assert page.status_code == 200
    assert page.headers["Content-Type"].startswith("text/html")
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy


def test_an_upgrade_is_seen_at_once_and_the_rest_is_not_sent_again(http: httpx.Client) -> None:
    for path in ("/", *(f"/page/{name}" for name in FILES)):
        answer = http.get(path)
        assert answer.headers["Cache-Control"] == "no-cache", path
        again = http.get(path, headers={"If-None-Match": answer.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("name", ["none.js", "../main.py", "%2e%2e/main.py", "views", "views/"])
def test_what_is_not_in_the_table_is_not_there(name: str, http: httpx.Client) -> None:
    answer = http.get(f"/page/{name}")
    assert answer.status_code == 404
    assert answer.json()["code"] == "not_found"


def test_modules_import_what_is_there_and_what_they_use() -> None:
    for name, text in SCRIPTS.items():
        for names, found in re.findall(r'^import \{ (.+) \} from "(.+)";$', text, re.MULTILINE):
            target = (Path("/") / name).parent.joinpath(found).resolve().relative_to("/")
            exported = SCRIPTS[target.as_posix()]
            for each in names.split(", "):
                said = rf"^export (async )?(function\*?|class|const) {each}\b"
                assert re.search(said, exported, re.MULTILINE), f"{name} imports {each}"
                assert len(re.findall(rf"\b{each}\b", text)) > 1, f"{name} leaves {each} unused"


@pytest.mark.parametrize("markup", ["innerHTML", "outerHTML", "insertAdjacentHTML", "eval("])
def test_no_script_parses_markup(markup: str) -> None:
    assert not [name for name, text in SCRIPTS.items() if markup in text]


def test_the_first_view_is_small() -> None:
    assert sum(len(FILES[name].content) for name in FIRST) < 100_000
