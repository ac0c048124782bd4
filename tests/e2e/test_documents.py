"""What the documents tell a reader to type works as it stands, but for the number of steps."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import pictures
from tests.support.server import Server

ROOT = Path(__file__).parents[2]


def blocks(document: str, language: str) -> list[str]:
    text = (ROOT / document).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def environment(server: Server, tmp_path: Path) -> dict[str, str]:
    """A reader's shell: pictures in ``pictures`` and, with captions, in ``captioned``; `stillroom`
    on the path, our server's address."""
    pictures.write(tmp_path / "pictures", 2)
    for path in pictures.write(tmp_path / "captioned", 2):
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


def test_the_readmes_first_lora(environment: dict[str, str], tmp_path: Path) -> None:
    script = blocks("README.md", "sh")[1].replace("--steps 200", "--steps 2")
    run(["bash", "-euc", script], tmp_path, environment)
    assert {path.name for path in (tmp_path / "dog").iterdir()} >= {
        "pytorch_lora_weights.safetensors",
        "report.json",
    }
    assert list((tmp_path / "drawn").glob("*.png"))


def test_the_readmes_student(environment: dict[str, str], tmp_path: Path) -> None:
    script = blocks("README.md", "sh")[2].replace("--steps 400", "--steps 2")
    run(["bash", "-euc", script], tmp_path, environment)
    assert {path.name for path in (tmp_path / "student").iterdir()} == {
        *("unet", "ssd1b.safetensors", "report.json", "sheet.png"),
    }
    assert list((tmp_path / "drawn").glob("*.png"))


def test_the_readmes_queue(environment: dict[str, str], tmp_path: Path) -> None:
    script = blocks("README.md", "sh")[3].replace("--steps 200", "--steps 2")
    told = run(["bash", "-euc", script], tmp_path, environment)
    assert len(list((tmp_path / "drawn").glob("*.png"))) == 2
    assert "\tcpu\tany\topen\t" in told


def test_the_readmes_python(server: Server, environment: dict[str, str], tmp_path: Path) -> None:
    (script,) = blocks("README.md", "python")
    script = (
        script.replace('"steps": 200', '"steps": 2')
        .replace("http://127.0.0.1:8400", server.url)
        .replace("~/.local/share/stillroom", str(server.settings.root))
    )
    run([sys.executable, "-c", script], tmp_path, environment)
    assert (tmp_path / "dog.safetensors").stat().st_size > 1000


def test_core_as_a_library(environment: dict[str, str], tmp_path: Path) -> None:
    (script,) = blocks("CONTRIBUTING.md", "python")
    drawn = run([sys.executable, "-c", script], tmp_path, environment).splitlines()[-1]
    assert (tmp_path / drawn).is_file()


@pytest.mark.parametrize("target", ["install", "demo", "serve", "check", "test", "bench", "fmt"])
def test_the_makefile_has_what_the_documents_name(target: str) -> None:
    ran = subprocess.run(
        ["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr


def test_every_verb_that_the_documents_name_exists() -> None:
    text = (ROOT / "README.md").read_text() + (ROOT / "DECISIONS.md").read_text()
    verbs = sorted(set(re.findall(r"stillroom ([a-z-]+(?: (?:create|pull|upload))?)", text)))
    assert len(verbs) > 8
    for verb in verbs:
        command = [sys.executable, "-m", "api.cli", *verb.split(), "--help"]
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, f"stillroom {verb}: {ran.stderr}"
