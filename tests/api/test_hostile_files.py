"""A thousand files that mean harm, sent to a real server, and what they must not do."""

import io
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest
from PIL import Image

from core.config import MIB, Settings
from core.datasets.decoder_pool import BYTES_A_PIXEL
from tests.support import hostile, uploads
from tests.support.hostile import Hostile
from tests.support.server import (
    children_of,
    command_of,
    free_port,
    is_running,
    wait_until,
)

API_BYTES = 192 * MIB
"""The most that the API's own process may ever hold; it begins with about 100."""
DECODER_BYTES = 256 * MIB + BYTES_A_PIXEL * 100_000_000
ANSWERS = {200, 201, 400, 413, 422}
IN_A_DATASET = 100


@dataclass
class Place:
    """A server in a home of its own, and what lies around it."""

    folder: Path
    settings: Settings
    process: "subprocess.Popen[bytes]"
    http: httpx2.Client
    peak_bytes: Counter[str] = field(default_factory=Counter)

    def look(self) -> None:
        """At the most that each process has ever held."""
        self._note("API", self.process.pid)
        for pid in self.decoders():
            self._note("decoder", pid)

    def _note(self, who: str, pid: int) -> None:
        told = Path(f"/proc/{pid}/status").read_text()
        held = int(told.partition("VmHWM:")[2].split()[0]) * 1024
        self.peak_bytes[who] = max(self.peak_bytes[who], held)

    def decoders(self) -> list[int]:
        return [
            pid for pid in children_of(self.process.pid) if "datasets.decoder" in command_of(pid)
        ]

    def outside(self) -> set[str]:
        """Everything beside the home."""
        return {
            str(path.relative_to(self.folder))
            for path in self.folder.rglob("*")
            if not path.is_relative_to(self.settings.root)
        }

    def new_dataset(self) -> str:
        made = self.http.post("/v1/datasets", json={"name": "dog", "kind": "instance"})
        return str(made.json()["id"])

    def send(self, dataset: str, file: Hostile) -> httpx2.Response:
        part = (file.filename, file.content, "image/png")
        if file.is_lora:
            return self.http.post("/v1/artifacts", files={"file": part})
        return self.http.post(f"/v1/datasets/{dataset}/images", files={"files": part})


@contextmanager
def serving(folder: Path) -> Iterator[Place]:
    """`python -m api`, whose every way to write outside its home leads to ``folder``."""
    for name in ("elsewhere", "tmp", "user"):
        (folder / name).mkdir()
    settings = Settings(home=folder / "home", port=free_port())
    environment = {
        **os.environ,
        **{"STILLROOM_HOME": str(settings.home), "STILLROOM_PORT": str(settings.port)},
        **{"TMPDIR": str(folder / "tmp"), "HOME": str(folder / "user")},
    }
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "api"],
            env=environment,
            cwd=folder / "elsewhere",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    url = f"http://127.0.0.1:{settings.port}"
    try:
        with httpx2.Client(base_url=url, timeout=120, trust_env=False) as http:
            wait_until(lambda: answers(http), 60, "the API answers")
            key = settings.admin_key_path.read_text().strip()
            http.headers["Authorization"] = f"Bearer {key}"
            yield Place(folder, settings, process, http)
    finally:
        process.terminate()
        process.wait(30)


def answers(http: httpx2.Client) -> bool:
    try:
        return http.get("/healthz").status_code == 200
    except httpx2.TransportError:
        return False


@pytest.mark.parametrize(
    ("seed", "count"), [(1, 110), pytest.param(2, 1_000, marks=pytest.mark.faults)]
)
def test_none_breaks_the_server_or_leaves_its_home(
    seed: int, count: int, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    statuses: Counter[int] = Counter()
    with serving(tmp_path) as place:
        before = place.outside()
        for number, file in enumerate(hostile.files(seed, count)):
            if number % IN_A_DATASET == 0:
                dataset = place.new_dataset()
            answer = place.send(dataset, file)
            statuses[answer.status_code] += 1
            require_sound(answer, file, place)
            place.look()
        assert place.outside() == before
        assert list(place.settings.scratch_path.iterdir()) == []
        assert shown(place, place.new_dataset(), "good.png", uploads.picture()) == (64, 48)
        assert place.peak_bytes["API"] < API_BYTES
        assert place.peak_bytes["decoder"] < DECODER_BYTES
        log = (tmp_path / "server.log").read_text()
        assert "Traceback" not in log, log[-3000:]
        decoders = place.decoders()
        assert decoders
    assert place.process.returncode == 0
    assert not [pid for pid in decoders if is_running(pid)]
    peaks = ", ".join(f"{who} {held / MIB:.0f} MiB" for who, held in place.peak_bytes.items())
    tell(f"{count} hostile files, seed {seed}: {dict(statuses)}; at most {peaks}")


def require_sound(answer: httpx2.Response, file: Hostile, place: Place) -> None:
    """A refusal is a problem document; what was taken is handed out as pixels and nothing else."""
    assert answer.status_code in ANSWERS, (file.kind, file.filename, answer.text)
    assert str(place.folder) not in answer.text
    if answer.status_code >= 400:
        assert answer.headers["Content-Type"] == "application/problem+json", file.kind
        assert answer.json()["detail"].endswith("."), answer.text
    elif not file.is_lora:
        dataset = answer.json()["dataset"]["id"]
        for id in {item["id"] for item in answer.json()["items"] if item["id"]}:
            require_harmless(place.http.get(f"/v1/datasets/{dataset}/images/{id}"))


def require_harmless(shown: httpx2.Response) -> None:
    assert shown.status_code == 200
    assert shown.headers["Content-Type"] == "image/png"
    assert shown.headers["X-Content-Type-Options"] == "nosniff"
    assert shown.headers["Content-Security-Policy"].startswith("sandbox")
    assert set(uploads.chunks_of(shown.content)) == {b"IHDR", b"IDAT", b"IEND"}
    assert hostile.SCRIPT not in shown.content


def shown(place: Place, dataset: str, name: str, content: bytes) -> tuple[int, int]:
    """The size of a picture that is sent and fetched again."""
    (item,) = place.send(dataset, Hostile("good", name, content)).json()["items"]
    path = f"/v1/datasets/{dataset}/images/{item['id']}"
    return Image.open(io.BytesIO(place.http.get(path).content)).size
