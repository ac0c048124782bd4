"""Somebody who does as a document says: its commands in order, in a folder with pictures."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support import pictures
from tests.support.server import Server

ROOT = Path(__file__).parents[2]


def blocks(document: str, language: str) -> list[str]:
    """What stands between fences of ``language``, in order."""
    text = (ROOT / document).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def shell_for(server: Server, folder: Path) -> dict[str, str]:
    """A reader's environment: pictures in ``pictures`` and, with captions, in ``captioned``;
    `stillroom` on the path, our server's address."""
    pictures.write(folder / "pictures", 2)
    for path in pictures.write(folder / "captioned", 2):
        path.with_suffix(".txt").write_text(f"a photo of {path.stem}")
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "STILLROOM_URL": server.url,
        "STILLROOM_HOME": str(server.settings.root),
        "OMP_NUM_THREADS": "1",
    }


def run(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    ran = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
    return ran.stdout
