"""What the documents tell a reader to type works as it stands, but for the number of steps."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from api.client import Client
from core.layouts import SDXL
from tests.support import loras, pictures
from tests.support.command_line import understand
from tests.support.reader import ROOT, blocks, run, shell_for
from tests.support.server import Server


@pytest.fixture
def environment(server: Server, tmp_path: Path) -> dict[str, str]:
    return shell_for(server, tmp_path)


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


def test_the_readmes_lora_from_elsewhere(environment: dict[str, str], tmp_path: Path) -> None:
    tensors = loras.spelt(loras.kohya_sgm, loras.unet_pairs(SDXL), 2)
    (tmp_path / "robot.safetensors").write_bytes(loras.file_of(tensors))
    script = blocks("README.md", "sh")[4]
    run(["bash", "-euc", script], tmp_path, environment)
    assert list((tmp_path / "drawn").glob("*.png"))


def test_the_readmes_python(server: Server, environment: dict[str, str], tmp_path: Path) -> None:
    (script,) = blocks("README.md", "python")
    script = (
        script.replace('"steps": 200', '"steps": 2')
        .replace("http://127.0.0.1:8400", server.url)
        .replace("~/.local/share/stillroom", str(server.settings.root))
    )
    run([sys.executable, "-c", script], tmp_path, environment)
    assert (tmp_path / "dog.safetensors").stat().st_size > 1000


def test_own_data(environment: dict[str, str], client: Client, tmp_path: Path) -> None:
    """The student that it ends with is taught in tests/faults/test_import.py."""
    folder = tmp_path / "data" / "pets"
    for path in pictures.write(folder, 2):
        path.with_suffix(".txt").write_text(f"a photo of {path.stem}")
    script = blocks("docs/own-data.md", "sh")[0].replace("/data", str(tmp_path / "data"))
    told = run(["bash", "-euc", f"{script}\necho $dataset"], tmp_path, environment)
    assert "holds\t2 pictures" in told
    assert "0.png\t64x64\ta photo of 0" in told
    spec = {"base": "nano-ssd-1b", "dataset": told.split()[-1], "method": "captioned", "steps": 1}
    pictures.draw(9).save(folder / "1.png")
    failed = client.wait(client.fine_tune(spec)["id"])
    assert failed["error"]
    assert failed["error"]["code"] == "picture_changed"
    assert failed["error"]["detail"].startswith("1.png holds other bytes")
    pictures.draw(1).save(folder / "1.png")
    learnt = client.wait(client.fine_tune(spec)["id"])
    assert learnt["state"] == "succeeded", learnt["error"]


def test_core_as_a_library(environment: dict[str, str], tmp_path: Path) -> None:
    (script,) = blocks("CONTRIBUTING.md", "python")
    drawn = run([sys.executable, "-c", script], tmp_path, environment).splitlines()[-1]
    assert (tmp_path / drawn).is_file()


@pytest.mark.parametrize(
    "target", ["install", "demo", "serve", "check", "test", "bench", "screenshots", "fmt"]
)
def test_the_makefile_has_what_the_documents_name(target: str) -> None:
    ran = subprocess.run(
        ["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr


def test_every_verb_that_the_documents_name_exists() -> None:
    named = ("README.md", "DECISIONS.md", "docs/own-data.md")
    text = "".join((ROOT / name).read_text() for name in named)
    verbs = sorted(set(re.findall(r"stillroom ([a-z-]+(?: (?:create|pull|upload|import))?)", text)))
    assert len(verbs) > 8
    for verb in verbs:
        with pytest.raises(typer.Exit):  # what --help ends with
            understand([*verb.split(), "--help"])
