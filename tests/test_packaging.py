"""What `pip install` brings: three packages, the migrations, and a command that works anywhere."""

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "api/page"


def version() -> str:
    """Ours, as pyproject.toml has it."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked as pip would."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(installed: Path, folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """`stillroom` of that wheel, in a folder that has nothing of ours."""
    return subprocess.run(
        [sys.executable, "-P", "-c", "from api.cli import main; main()", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(installed), "STILLROOM_HOME": str(folder / "home")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_wheel_holds_the_packages_and_nothing_else(installed: Path) -> None:
    names = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}
    assert names == {"api", "worker", "core"}
    assert (installed / "core/db/migrations/env.py").is_file()
    assert list((installed / "core/db/migrations/versions").glob("*.py"))
    assert (installed / "core/nano/weights/nano-sdxl/unet/config.json").is_file()
    assert {path.suffix for path in (installed / "api/docs").iterdir()} >= {".html", ".js", ".css"}
    of_the_page = {path.relative_to(PAGE) for path in PAGE.rglob("*") if path.is_file()}
    packed = installed / "api/page"
    assert {path.relative_to(packed) for path in packed.rglob("*") if path.is_file()} == of_the_page


def test_it_migrates_from_anywhere(installed: Path, tmp_path: Path) -> None:
    ran = run(installed, tmp_path, "migrate")
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "home" / "stillroom.db").is_file()


def test_it_says_what_it_can(installed: Path, tmp_path: Path) -> None:
    ran = run(installed, tmp_path, "--help")
    assert ran.returncode == 0, ran.stderr
    for verb in ("serve", "worker", "demo", "migrate", "models", "keys", "fine-tune", "generate"):
        assert verb in ran.stdout
