"""`python -m api` as others start it: a real process on a real socket."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx

from tests.api.live import free_port


def test_it_answers_and_ends_well_on_sigterm(tmp_path: Path) -> None:
    port = free_port()
    environment = os.environ | {"STILLROOM_HOME": str(tmp_path), "STILLROOM_PORT": str(port)}
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    process = subprocess.Popen(
        [sys.executable, "-m", "api"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (1024, most)),
    )
    try:
        answer = first_answer(f"http://127.0.0.1:{port}/healthz")
        assert answer.json() == {"status": "ok"}
        assert "server" not in answer.headers
        assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (most, most)
        assert not list(tmp_path.glob("*.part"))
        assert not [path for path in tmp_path.rglob("*") if path.stat().st_mode & 0o077]
    finally:
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=20)
    assert process.returncode == 0
    assert all(json.loads(line)["level"] in ("info", "debug") for line in log.splitlines())


def first_answer(url: str) -> httpx.Response:
    for _ in range(400):
        try:
            return httpx.get(url, trust_env=False)
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError(f"nobody answers at {url}")
