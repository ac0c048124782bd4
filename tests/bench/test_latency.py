"""How long a job waits for an idle worker, and what starting the API costs."""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.server import running

MAX_START_SECONDS = 1.5
MAX_CLAIM_SECONDS = 0.1


@pytest.mark.bench
def test_importing_the_api(tell: Callable[[str], None]) -> None:
    def start_seconds() -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import api.main"], check=True)
        return time.perf_counter() - began

    start_seconds()  # compiles
    seconds = statistics.median(start_seconds() for _ in range(5))
    tell(f"`import api.main` takes {seconds:.2f} s")
    assert seconds < MAX_START_SECONDS


@pytest.mark.bench
def test_from_commit_to_claim(tmp_path: Path, tell: Callable[[str], None]) -> None:
    waits = []
    with running(tmp_path / "home") as server, server.client() as client:
        for seed in range(8):
            spec = {"base": "nano-ssd-1b", "prompt": "x", "steps": 1, "seed": seed}
            job = client.wait(client.generate(spec)["id"])
            waits.append(job["usage"]["queue_seconds"])
    wait = statistics.median(waits)
    tell(f"an idle worker takes a job {wait * 1000:.0f} ms after its commit")
    assert wait < MAX_CLAIM_SECONDS
