"""What the doctor says of machines, those that are not here among them."""

from pathlib import Path

import pytest

from api.doctor import cards, fits, machine, torch_build
from api.doctor.cards import Card
from api.doctor.torch_build import TorchBuild
from core.config import GIB, Settings

CPU = TorchBuild("2.13.0+cpu", None)
CUDA = TorchBuild("2.13.0", "13.0")
CARD = Card("NVIDIA GeForce RTX 3060", 12 * GIB, "570.86")


def test_the_build_that_is_installed_is_read_without_importing_it() -> None:
    import torch

    build = torch_build.installed()
    assert build == TorchBuild(str(torch.__version__), torch.version.cuda)


@pytest.mark.parametrize(
    ("source", "build"),
    [
        ("__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\nhip: Optional[str] = None", CPU),
        ("__version__ = '2.13.0'\ncuda: Optional[str] = '13.0'\nhip: Optional[str] = None", CUDA),
        ("__version__ = '2.13.0'\ncuda = '13.0'", CUDA),
    ],
)
def test_builds(source: str, build: TorchBuild) -> None:
    assert torch_build.parsed(source) == build


def test_what_the_driver_tells() -> None:
    told = (
        "WARNING: infoROM is corrupted at gpu 0000:01:00.0\n"
        "NVIDIA GeForce RTX 3060, 12288, 570.86\n"
        "Quadro, with a comma, 8192, 570.86\n"
        "GB10, [N/A], 580.1\n"
    )
    assert cards.parsed(told) == [CARD, Card("Quadro, with a comma", 8 * GIB, "570.86")]
    assert cards.parsed("") == []


def test_a_card_on_the_bus(tmp_path: Path) -> None:
    for name, vendor, kind in (
        ("cpu", "0x8086", "0x060000"),
        ("its sound", "0x10de", "0x040300"),
        ("other", "0x1002", "0x030000"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vendor").write_text(f"{vendor}\n")
        (tmp_path / name / "class").write_text(f"{kind}\n")
    assert not cards.on_the_bus(tmp_path)
    (tmp_path / "card").mkdir()
    assert not cards.on_the_bus(tmp_path), "nothing can be read of it"
    (tmp_path / "card" / "vendor").write_text("0x10de\n")
    (tmp_path / "card" / "class").write_text("0x030200\n")
    assert cards.on_the_bus(tmp_path)


@pytest.mark.parametrize(
    ("told", "plugged_in", "build", "verdict"),
    [
        ([CARD], True, CUDA, "good"),
        ([CARD], True, CPU, "bad"),
        (None, True, CPU, "bad"),
        (None, False, CPU, "good"),
        (None, False, CUDA, "good"),
        ([CARD], True, None, "note"),
    ],
)
def test_a_build_for_the_cpu_beside_a_card(
    told: list[Card] | None, plugged_in: bool, build: TorchBuild | None, verdict: str
) -> None:
    found = machine.torch(build, told, plugged_in)
    assert found.verdict == verdict
    if verdict == "bad":
        assert "pip install --force-reinstall torch==2.13.0" in found.says


def test_cards() -> None:
    (found,) = machine.cards_found([CARD], True)
    assert (found.verdict, found.says) == ("good", "NVIDIA GeForce RTX 3060, 12 GiB, driver 570.86")
    (found,) = machine.cards_found(None, True)
    assert (found.verdict, "no driver answers" in found.says) == ("bad", True)
    (found,) = machine.cards_found(None, False)
    assert found.verdict == "note"


def test_systems() -> None:
    assert machine.system("Linux", "6.6.87.2-microsoft-standard-WSL2").says.endswith("in WSL2")
    assert machine.system("Linux", "6.1.0").verdict == "good"
    assert "wsl --install" in machine.system("Windows", "11").says
    assert machine.system("Darwin", "25").verdict == "bad"
    assert machine.python((3, 10)).verdict == "bad"
    assert machine.python((3, 11)).verdict == "good"
    assert machine.memory(8 * 10**9).verdict == "note"
    assert machine.memory(32 * 10**9).verdict == "good"


def test_disks(tmp_path: Path) -> None:
    home = tmp_path / "not" / "there" / "yet"
    assert machine.disk(Settings(home=home, min_free_bytes=2**62)).verdict == "bad"
    assert machine.disk(Settings(home=home, min_free_bytes=0)).verdict in ("good", "note")
    assert not home.exists()


def fitting(gibibytes: int) -> dict[str, str]:
    return {
        found.says.partition(":")[0].removesuffix(" does not fit"): found.verdict
        for found in fits.on(Card("card", gibibytes * GIB, "1"))
    }


def test_which_jobs_fit() -> None:
    small, middle, large = fitting(6), fitting(12), fitting(24)
    assert set(large.values()) == {"good"}
    assert middle["a LoRA on ssd-1b"] == middle["a LoRA on sdxl"] == "good"
    assert middle["distilling sdxl into ssd-1b"] == "note"
    assert small["drawing with sdxl"] == "note"
