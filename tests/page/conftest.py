"""The API on a socket with rows of every sort, a browser, and somebody who looks at the page."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, expect

from api.client import Client
from api.demo import subject
from core.artifacts import service as artifacts
from core.artifacts.service import StoredFile
from core.db.models import Artifact
from core.ids import new_id
from core.jobs.attempt import Attempt
from core.layouts import SDXL
from core.owners import service as owners
from core.owners.service import ADMIN
from tests.api.live import Live, serving_api
from tests.support import browser as browsers
from tests.support import elsewhere, jobs, loras, pictures, uploads

PATIENCE_MS = 60_000
expect.set_options(timeout=PATIENCE_MS)
PROMPT = "a photo of sks robot"
TERMS = ("task", "output", "feature")
REFUSED = "Failed to load resource: the server responded with a status of 4"
"""Chromium's note of every refusal, which a page that asks before it acts gets on purpose."""


@dataclass
class Visit:
    """A page of a fresh profile. What it should not do is noted in ``complaints``."""

    url: str
    page: Page
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._see)

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not message.text.startswith(REFUSED):
            self.complaints.append(message.text)

    def _see(self, request: Request) -> None:
        if not request.url.startswith((self.url, f"blob:{self.url}")):
            self.complaints.append(f"asked {request.url}")

    def sign_in(self, key: str) -> None:
        """As with the address that `stillroom serve` prints."""
        self.page.goto(f"{self.url}/#key={key}")
        self.page.get_by_role("heading", level=1).wait_for()

    def open(self, view: str, heading: str) -> None:
        self.page.goto(f"{self.url}/#/{view}")
        self.page.get_by_role("heading", level=1, name=heading, exact=True).wait_for()


@dataclass(frozen=True)
class Made:
    """Ids of what there is to see."""

    robot: str
    discs: str
    trained: str
    running: str
    lora: str
    image: str


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with browsers.launched(browsers.need()) as browser:
        yield browser


@pytest.fixture
def visitor(browser: Browser) -> Iterator[Callable[..., Visit]]:
    """Opens visits of ``url``; whatever they complained of fails the test at its end."""
    contexts: list[BrowserContext] = []
    visits: list[Visit] = []

    def come(url: str, **about: Any) -> Visit:
        contexts.append(browser.new_context(**about))
        visits.append(Visit(url, contexts[-1].new_page()))
        return visits[-1]

    yield come
    for context in contexts:
        context.close()
    assert [visit.complaints for visit in visits] == [[]] * len(visits)


@pytest.fixture(scope="package")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    home = tmp_path_factory.mktemp("page") / "home"
    with serving_api(home, reap_seconds=3600) as live:
        yield live


@pytest.fixture
def lone(tmp_path: Path) -> Iterator[Live]:
    """With nothing in it."""
    with serving_api(tmp_path / "home", reap_seconds=3600, max_queued_jobs=100_000) as live:
        yield live


@pytest.fixture(scope="package")
def made(live: Live, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("made")
    with Client(live.url, live.key) as client:
        robot = client.create_dataset("robot")["id"]
        client.upload(robot, subject.save_pictures(folder / "robot"))
        discs = client.create_dataset("discs", kind="captioned")["id"]
        first, *_ = pictures.write(folder / "discs", 3)
        first.with_suffix(".txt").write_text("a disc at dusk")
        client.upload(discs, [folder / "discs"])
        lora = _brought(client, folder / "robot.safetensors")
    _worker(live)
    trained, image = _trained(live, robot), _drawn(live, lora)
    return Made(robot, discs, trained, _running(live, robot), lora, image)


@pytest.fixture(scope="package")
def desk(browser: Browser, live: Live, made: Made) -> Iterator[Visit]:
    """Where the administrator sits, signed in. What there is to see is there."""
    with browser.new_context() as context:
        visit = Visit(live.url, context.new_page())
        visit.sign_in(live.key)
        yield visit


@pytest.fixture
def visit(desk: Visit) -> Iterator[Visit]:
    """The administrator's, of the page opened anew: a profile for each test would take longer."""
    desk.open("jobs", "Jobs")
    desk.page.reload()
    yield desk
    complaints, desk.complaints = desk.complaints, []
    assert complaints == []


def user_key(live: Live, *scopes: owners.Scope) -> str:
    with live.app.state.database.write() as session:
        _, token = owners.create(session, owner=new_id("req"), name="test", scopes=scopes)
    return token


def _brought(client: Client, path: Path) -> str:
    path.write_bytes(loras.file_of(loras.spelt(loras.kohya_sgm, loras.unet_pairs(SDXL), 2)))
    return client.upload_lora(path)["id"]


def _worker(live: Live) -> None:
    about = {"chip": "H100", "memory_bytes": 80 * 1024**3}
    elsewhere.worker(live.app.state.database, *jobs.BASES, device="cuda:0", **about)


def _submitted(live: Live, kind: str, spec: dict[str, Any], **about: Any) -> Attempt:
    """A job that a worker has taken, which is gone again."""
    database = live.app.state.database
    job = jobs.submit(database, live.settings, owner=ADMIN, kind=kind, spec=spec, **about)
    taken = jobs.take(database, jobs.register(database, live.settings, device=job.id))
    assert taken.id == job.id
    return Attempt(job.id, taken.attempt)


def _training(dataset: str) -> dict[str, Any]:
    return {
        "base": "nano-sdxl",
        "dataset": dataset,
        "instance_prompt": PROMPT,
        "steps": 300,
        "sample": {"prompts": [PROMPT], "every": 100},
    }


def _trained(live: Live, dataset: str) -> str:
    attempt = _submitted(live, "fine_tune", _training(dataset), name="robot")
    _tell_steps(live, attempt, range(10, 310, 10))
    samples = [
        _picture(live, number, attempt.job_id, "sample", step=100 * number).id
        for number in (1, 2, 3)
    ]
    with live.app.state.database.write() as session:
        attempt.succeed(session, {"samples": samples})
    return attempt.job_id


def _running(live: Live, dataset: str) -> str:
    attempt = _submitted(live, "fine_tune", _training(dataset), name="robot, longer")
    _tell_steps(live, attempt, range(10, 110, 10))
    return attempt.job_id


def _tell_steps(live: Live, attempt: Attempt, steps: range) -> None:
    with live.app.state.database.write() as session:
        for step in steps:
            told = {"step": step, "steps": 300, "fraction": step / 300, "eta_seconds": 300 - step}
            progress = {**told, "message": "training"}
            loss = 0.1 + 1 / step
            terms = {name: loss * part for part, name in enumerate(TERMS, 1)}
            readings = {"loss": loss, "loss_step": step, "terms": terms}
            attempt.tell(session, "progress", {**progress, **readings}, progress=progress)


def _drawn(live: Live, lora: str) -> str:
    """Two pictures; the id of the first."""
    spec = {"base": "nano-sdxl", "prompt": PROMPT, "images": 2, "seed": 104, "steps": 12}
    uses = [{"artifact": lora, "weight": 0.8}]
    attempt = _submitted(live, "generate", spec | {"loras": uses})
    images = [
        _picture(live, number, attempt.job_id, "image", seed=104 + number) for number in (0, 1)
    ]
    with live.app.state.database.write() as session:
        attempt.succeed(session, {"images": [image.id for image in images]})
    return images[0].id


def _picture(live: Live, number: int, job_id: str, role: str, **facts: Any) -> Artifact:
    out = io.BytesIO()
    pictures.draw(number).save(out, "PNG")
    content, key = out.getvalue(), f"test/{new_id('art')}"
    live.app.state.store.put_bytes(key, content)
    name = f"{role}-{number}.png"
    with live.app.state.database.write() as session:
        return artifacts.record(
            session,
            owner=ADMIN,
            job_id=job_id,
            kind="image",
            role=role,
            name=name,
            format="png",
            files=[StoredFile(name, len(content), uploads.sha256(content), key)],
            base="nano-sdxl",
            layout="sdxl",
            facts={"prompt": PROMPT, "seed": 104} | facts,
        )
