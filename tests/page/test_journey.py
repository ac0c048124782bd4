"""What the page is for, with a real worker: pictures in, a LoRA, a picture of it, the file on disk.
On the way the server goes away and comes back."""

import hashlib
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from api.demo import subject
from tests.page.conftest import Visit
from tests.support.browser import need
from tests.support.server import Server, children_of, command_of, kill, running

PROMPT = "a photo of sks robot"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    need()
    with running(tmp_path_factory.mktemp("journey") / "home") as server:
        yield server


@pytest.fixture
def visit(visitor: Callable[..., Visit], server: Server) -> Visit:
    visit = visitor(server.url)
    visit.sign_in(server.settings.admin_key_path.read_text().strip())
    return visit


def test_from_pictures_to_a_lora_and_its_picture(
    visit: Visit, server: Server, tmp_path: Path
) -> None:
    page = visit.page
    upload(page, subject.save_pictures(tmp_path)[:3])
    train(page)
    lose_the_server(visit, server)
    strip = page.locator("film-strip button")
    expect(strip.first).to_contain_text("step 40")
    expect(page.locator(".standing")).to_contain_text("succeeded")
    states = page.locator(".history [data-type=state] span")
    expect(states).to_have_text(["succeeded", "running", "queued"])  # each was told once
    file = download(page, "pytorch_lora_weights.safetensors", tmp_path)
    with server.client() as client:
        (lora,) = client.list_artifacts(role="lora")
        assert hashlib.sha256(file.read_bytes()).hexdigest() == lora["sha256"]
        draw(page)
        job = next(client.list_jobs(kind="generate"))
    assert job["spec"]["loras"] == [{"artifact": lora["id"], "job": None, "weight": 0.7}]
    seed = job["spec"]["seed"]
    page.get_by_label("Weight as a number").fill("0")
    page.get_by_role("button", name="Draw again with the same seed").click()
    expect(page.locator("drawn-here canvas")).to_have_count(2)
    expect(page.locator("drawn-here .told")).to_have_text([re.compile(f"seed {seed}")] * 2)
    visit.open("gallery", "Gallery")
    expect(page.locator(".tiles li")).to_have_count(2)


def upload(page: Page, paths: list[Path]) -> None:
    page.get_by_role("link", name="Add pictures").click()
    page.get_by_label("Name of a new one").fill("robot")
    page.get_by_label("Choose pictures").set_input_files(paths)
    expect(page.locator(".card")).to_have_count(len(paths))


def train(page: Page) -> None:
    page.get_by_role("link", name="Train on it").click()
    page.get_by_label("Base model").select_option("nano-ssd-1b")
    page.get_by_label("Subject in words").fill(PROMPT)
    page.get_by_label("Steps", exact=True).first.fill("40")
    page.get_by_role("group", name="Samples").get_by_label("Steps", exact=True).fill("4")
    page.get_by_role("button", name="Start training: 40 steps").click()
    page.get_by_role("heading", name=PROMPT).wait_for()


def download(page: Page, name: str, folder: Path) -> Path:
    with page.expect_download() as saved:
        page.get_by_role("button", name=f"Download {name}").click()
    assert saved.value.suggested_filename == name
    saved.value.save_as(folder / name)
    return folder / name


def draw(page: Page) -> None:
    page.get_by_role("link", name="Draw with it").click()
    expect(page.get_by_label("Prompt needed")).to_have_value(PROMPT)
    page.get_by_label("Steps", exact=True).fill("4")
    page.get_by_label("Weight as a number").fill("0.7")
    page.get_by_role("button", name="Draw a picture").click()
    expect(page.locator("drawn-here canvas")).to_have_count(1)
    expect(page.locator("drawn-here canvas")).to_have_js_property("width", 64)


def lose_the_server(visit: Visit, server: Server) -> None:
    """While it trains: the worker goes on, and so does the page once somebody answers again."""
    page = visit.page
    expect(page.locator(".standing")).to_contain_text("running")
    os.kill(server.process.pid, signal.SIGSTOP)  # or the API would be back before the page notices
    kill(api_of(server))
    banner = page.get_by_text("The server is away, trying again.")
    expect(banner).to_be_visible()
    os.kill(server.process.pid, signal.SIGCONT)
    expect(banner).to_be_hidden()
    visit.complaints[:] = [each for each in visit.complaints if "net::ERR" not in each]


def api_of(server: Server) -> int:
    (pid,) = (each for each in children_of(server.process.pid) if "\0api\0" in command_of(each))
    return pid
