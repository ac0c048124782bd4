"""Whoever starts the API in a terminal is told where the page is, signed in; a log is not."""

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.api.live import free_port
from tests.support.server import wait_until


def said(home: Path, *, in_terminal: bool) -> str:
    """What `python -m api` writes until it is ready."""
    port = free_port()
    ours, its = pty.openpty() if in_terminal else os.pipe()
    settings = {"STILLROOM_HOME": str(home), "STILLROOM_PORT": str(port)}
    process = subprocess.Popen(
        [sys.executable, "-m", "api"],
        env=os.environ | settings,
        stdin=subprocess.DEVNULL,
        stderr=its,
    )
    text = b""

    def heard() -> bool:
        nonlocal text
        text += os.read(ours, 4096)
        return b"running on" in text

    try:
        wait_until(heard, 30, "it runs")
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        text += os.read(ours, 65536)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(its)
    return text.decode().replace(str(port), "PORT")


@pytest.mark.parametrize("in_terminal", [True, False])
def test_a_terminal_is_told_and_a_log_is_not(in_terminal: bool, tmp_path: Path) -> None:
    text = said(tmp_path / "home", in_terminal=in_terminal)
    key = (tmp_path / "home" / "admin.key").read_text().strip()
    assert (f"http://127.0.0.1:PORT/#key={key}" in text) is in_terminal
    assert (key in text) is in_terminal
