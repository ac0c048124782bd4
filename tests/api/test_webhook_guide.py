"""What docs/webhooks.md tells a reader to type works as it stands, but for two addresses."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from api.client import Client
from core.webhooks import deliverer
from core.webhooks import service as webhooks
from core.webhooks.outbox import PAUSES_SECONDS
from tests.api.live import free_port, serving_api
from tests.support.reader import ROOT, blocks
from tests.support.server import wait_until

GUIDE = "docs/webhooks.md"


def test_the_guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliverer, "LOOK_SECONDS", 0.05)
    (receiver,) = blocks(GUIDE, "python")
    make, use, see, again, end = blocks(GUIDE, "sh")
    port = free_port()
    make = make.replace("https://shop.example", f"http://127.0.0.1:{port}")
    (tmp_path / "receiver.py").write_text(receiver.replace("9000", str(port)))
    heard, hook = tmp_path / "heard", tmp_path / "hook"
    with serving_api(tmp_path / "home", webhook_hosts=["127.0.0.1"]) as live:
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "STILLROOM_URL": live.url,
            "STILLROOM_HOME": str(live.home),
        }

        def shell(script: str) -> str:
            return subprocess.run(
                ["bash", "-euo", "pipefail", "-c", script],
                cwd=tmp_path,
                env=environment,
                check=True,
                text=True,
                stdout=subprocess.PIPE,
            ).stdout

        shell(f"{make}\necho $hook $secret > hook")
        name, environment["WEBHOOK_SECRET"] = hook.read_text().split()
        with heard.open("wb") as out:
            receiving = subprocess.Popen(
                [sys.executable, "receiver.py"],
                cwd=tmp_path,
                env=environment,
                stdout=out,
                stderr=subprocess.DEVNULL,
            )
        try:
            environment["hook"] = name
            job = shell(use).split()[1]
            with Client(live.url, live.key) as client:
                client.cancel(job)
            wait_until(
                lambda: f"job.cancelled {{'id': '{job}'" in heard.read_text(), 20, "it is told"
            )
            seen = shell(see)
            assert f"{name}\tshop\thttp://127.0.0.1:{port}/stillroom" in seen
            assert f"\tjob.cancelled\t{job}\tdelivered\t1\t204\t" in seen
            shell(again)
            wait_until(
                lambda: heard.read_text().count("job.cancelled") == 2, 20, "it is told again"
            )
            shell(end)
        finally:
            receiving.terminate()
            receiving.wait()
    events = [line.split()[1] for line in heard.read_text().splitlines()]
    assert sorted(events) == ["job.cancelled", "job.cancelled", "webhook.test"]


def test_the_guide_names_all_events_and_pauses() -> None:
    text = (ROOT / GUIDE).read_text()
    assert set(re.findall(r"`(job\.[a-z]+)`", text)) >= set(webhooks.EVENTS)
    assert [*PAUSES_SECONDS] == [5, 60, 300, 1800, 7200, 18000, 21600, 28800]
    assert "5 s, 1 min, 5 min, 30 min, 2 h, 5 h, 6 h and 8 h" in text
    assert f"{webhooks.MAX_WEBHOOKS} webhooks" in text
    assert "STILLROOM_WEBHOOK_HOSTS" in text
