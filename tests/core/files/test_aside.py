"""Folders that go are out of sight at once, and gone even when somebody dies at it."""

import os
import shutil
from pathlib import Path

import pytest

from core.files import aside


def filled(folder: Path) -> Path:
    folder.mkdir()
    (folder / "file").write_text("x")
    return folder


def test_a_folder_is_discarded_once(tmp_path: Path) -> None:
    folder = filled(tmp_path / "art_1")
    aside.discard(folder)
    aside.discard(folder)
    assert list(tmp_path.iterdir()) == []


def test_what_a_dead_process_left_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, filling, old = (filled(tmp_path / name) for name in ("art_1", ".art_2", ".art_3"))
    os.utime(old, (0, 0))
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)  # as if it died there
    aside.discard(filled(tmp_path / "art_4"))
    monkeypatch.undo()
    assert len(list(tmp_path.iterdir())) == 4
    aside.sweep(tmp_path)
    assert set(tmp_path.iterdir()) == {whole, filling}
