"""Imports that take long: 100,000 pairs in the memory of 10,000, and a student that learns."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from core.config import Settings
from core.db import migrate
from tests.support import shards
from tests.support.reader import blocks, run
from tests.support.server import running

_IMPORT = r"""
import re, sys
from pathlib import Path
from core.config import Settings
from core.datasets.importing import importer
folder = Path(sys.argv[1])
settings = Settings(home=sys.argv[2], import_roots=[folder])
report = importer.import_folder(folder, settings, lambda *_: None, name="many")
# unlike getrusage's, it does not begin with that of the process that started this one
peak_kib = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]
print(report.images, int(peak_kib) * 1024)
"""
MAX_GROWTH_BYTES = 20_000_000
"""90,000 rows that were kept would take four times as much."""


def peak_bytes(folder: Path, count: int) -> int:
    shards.write(folder / "data", count)
    settings = Settings(home=folder / "home")
    settings.prepare()
    migrate.upgrade(settings.effective_database_url)
    command = [sys.executable, "-c", _IMPORT, str(folder / "data"), str(folder / "home")]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    images, peak = map(int, ran.stdout.split())
    assert images == count
    return peak


@pytest.mark.faults
def test_memory_is_flat(tmp_path: Path, tell: Callable[[str], None]) -> None:
    few, many = peak_bytes(tmp_path / "few", 10_000), peak_bytes(tmp_path / "many", 100_000)
    tell(f"imported 10,000 pairs in {few / 1e6:.0f} MB and 100,000 in {many / 1e6:.0f} MB")
    assert many - few < MAX_GROWTH_BYTES


@pytest.mark.faults
def test_the_guides_student_learns_from_shards(tmp_path: Path) -> None:
    shards.write(tmp_path / "data" / "pets", 300)
    script = "\n".join(blocks("docs/own-data.md", "sh")).replace("--steps 400", "--steps 2")
    with running(tmp_path / "home") as server:
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "STILLROOM_URL": server.url,
            "STILLROOM_HOME": str(server.settings.root),
        }
        script = script.replace("/data", str(tmp_path / "data"))
        told = run(["bash", "-euc", script], tmp_path, environment)
        with server.client() as client:
            (job,) = client.list_jobs()
    assert "holds\t300 pictures" in told
    assert job["state"] == "succeeded"
