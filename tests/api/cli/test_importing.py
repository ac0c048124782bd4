"""`stillroom dataset import`: what it prints, and what it refuses in a sentence."""

import json
import shutil
from pathlib import Path

import pytest

from tests.api.cli.conftest import Run


def test_an_id_for_pipes_and_a_report_for_people(
    on_server: Run, captioned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLROOM_IMPORT_ROOTS", json.dumps([str(tmp_path)]))
    folder = shutil.copytree(captioned, tmp_path / "robots")
    (folder / "odd.txt").write_text("nothing of that name")
    code, out, err = on_server("dataset", "import", str(folder), "--name", "robots")
    assert code == 0
    assert "odd.txt has no picture" in err
    assert "caption_without_image: 1 left out." in err
    assert "(imagefolder, captioned) holds 5 pictures" in err
    assert "pixels were not decoded" in err
    listed = on_server("dataset", "list")[1].splitlines()
    assert f"{out.strip()}\trobots\tcaptioned\t5\tfrozen" in listed
    shown = on_server("dataset", "show", out.strip(), "--limit", "2")[1]
    assert shown.count("img_") == 2
    report = json.loads(
        on_server("dataset", "import", str(folder), "--name", "again", "--decode", "--json")[1]
    )
    assert (report["images"], report["decoded"], report["layout"]) == (5, True, "imagefolder")
    assert report["left_out"][0]["code"] == "caption_without_image"
    assert on_server("dataset", "delete", out.strip())[0] == 0
    assert len(list(folder.glob("*.png"))) == 5


def test_without_roots_the_setting_is_named(on_server: Run, captioned: Path) -> None:
    code, out, err = on_server("dataset", "import", str(captioned), "--name", "robots")
    assert (code, out) == (1, "")
    assert "STILLROOM_IMPORT_ROOTS" in err
