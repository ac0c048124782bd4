"""The document at /openapi.json against the server that serves it, by Schemathesis.

`make fuzz` sends a hundred examples an operation, other ones each time.
"""

import os
import subprocess
import sys
from pathlib import Path

from tests.api.live import serving_api
from tests.support import elsewhere

SCHEMATHESIS = Path(sys.executable).with_name("st")
CONFIGURATION = Path(__file__).resolve().parents[2] / "schemathesis.toml"
QUICK = "--max-examples=2 --generation-deterministic"
HOW = os.environ.get("FUZZ", QUICK).split()


def test_the_server_keeps_to_its_document(tmp_path: Path) -> None:
    """No 500, no status that is not documented, no answer that is not as its schema has it."""
    with serving_api(tmp_path / "home") as live:
        elsewhere.worker(live.app.state.database, "nano-ssd-1b", "nano-sdxl")
        document = f"{live.url}/openapi.json"
        run = subprocess.run(
            [SCHEMATHESIS, "--config-file", CONFIGURATION, "run", document, "--no-color", *HOW],
            env={**os.environ, "STILLROOM_KEY": live.key},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
    sys.stdout.write(run.stdout[-20_000:])
    assert run.returncode == 0, run.stderr[-2_000:]
