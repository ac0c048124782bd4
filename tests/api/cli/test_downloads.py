"""Downloads keep to their folder, and what is there."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from api.commands import download
from tests.api.cli.conftest import Run
from tests.api.live import Answer, answering


def an_artifact(number: int, name: str, content: bytes) -> Any:
    digest = hashlib.sha256(content).hexdigest()
    return {
        "id": f"art_{number}",
        "name": name,
        "role": "images",
        "bytes": len(content),
        "sha256": digest,
        "files": [{"path": "only.png", "bytes": len(content), "sha256": digest}],
    }


def test_download_never_leaves_its_folder_nor_replaces_another_file(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLROOM_KEY", "any")

    def answer(path: str) -> Answer:
        content = path.encode() if path.endswith("/content") else b""
        made = b"/v1/artifacts/art_1/content"
        return (200, content or an_artifact(1, "../../way out.png", made))

    folder = tmp_path / "here"
    with answering(answer) as url:
        assert run("download", "art_1", "--to", str(folder), "--url", url)[0] == 0
        assert [path.name for path in folder.iterdir()] == ["way out.png"]
        assert run("download", "art_1", "--to", str(folder), "--url", url)[0] == 0
        (folder / "way out.png").write_bytes(b"mine")
        code, _, err = run("download", "art_1", "--to", str(folder), "--url", url)
    assert code == 1
    assert "is something else already" in err
    assert (folder / "way out.png").read_bytes() == b"mine"
    assert list(tmp_path.iterdir()) == [folder]


def test_artifacts_of_one_name_are_told_apart() -> None:
    made = [
        an_artifact(1, "a.png", b""),
        an_artifact(2, "b.png", b""),
        an_artifact(3, "a.png", b""),
    ]
    assert download._names(made) == ["art_1-a.png", "b.png", "art_3-a.png"]
