"""The house stands as drawn: imports flow one way, every room is under a rule, the API is light."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TENSORS = {"torch", "diffusers", "peft", "transformers"}


def contracts() -> list[dict[str, object]]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts: list[dict[str, object]] = settings["tool"]["importlinter"]["contracts"]
    return contracts


def test_imports_keep_the_contracts() -> None:
    # as a process: it takes this one's loggers away from whatever is tested next
    command = Path(sys.executable).with_name("lint-imports")
    checked = subprocess.run([command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def test_no_contract_is_softened() -> None:
    assert all("ignore_imports" not in contract for contract in contracts())


def test_every_room_of_core_is_under_a_rule() -> None:
    ruled = {module for contract in contracts() for module in contract.get("source_modules", [])}  # type: ignore[attr-defined]
    rooms = {
        f"core.{path.stem}"
        for path in (ROOT / "core").iterdir()
        if path.stem not in ("__init__", "__pycache__")
    }
    assert rooms - ruled == set()


def test_the_api_starts_without_tensors() -> None:
    code = "import api.main, api.cli, sys; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert set(loaded.stdout.split()) & TENSORS == set()


def test_the_names_are_ours() -> None:
    """``api``, ``worker`` and ``core`` are common names: another package may have taken them."""
    import api
    import core
    import worker

    for package in (api, core, worker):
        assert package.__file__
        assert Path(package.__file__).is_relative_to(ROOT)


DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "core").rglob("*.md")]
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_within_the_house_lead_somewhere(document: Path) -> None:
    for link in LINK.findall(document.read_text()):
        assert (document.parent / link).exists(), link
