"""Rolls: what nobody names goes, and what somebody names stays."""

from pathlib import Path

import pytest

from core.files import roll
from core.files.roll import Roll


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for key in ("a", "b", "c"):
        path = tmp_path / key / f"{key}.row"
        path.parent.mkdir()
        path.touch()
    return tmp_path


def left(folder: Path) -> set[str]:
    return {path.stem for path in folder.rglob("*.row")}


def test_each_key_is_written_once_however_often_it_is_used(folder: Path) -> None:
    for _ in range(2):
        mine = Roll.of(folder, "me")
        for key in ("a", "b", "a"):
            mine.add(key)
    assert roll.path_of(folder, "me").read_text() == "a\nb\n"
    assert roll.users(folder) == ["me"]


def test_what_only_those_who_went_used_goes(folder: Path) -> None:
    for user, keys in (("gone", "ab"), ("here", "b")):
        for key in keys:
            Roll.of(folder, user).add(key)
    assert not roll.is_due(folder)
    mine = Roll.of(folder, "gone")
    roll.strike(folder, ["gone"])
    roll.strike(folder, ["gone"])  # by another process
    assert not mine.counts
    assert roll.is_due(folder)  # whoever dies here is followed by one who sweeps
    roll.sweep(folder, "*.row")
    assert left(folder) == {"b"}
    assert not roll.is_due(folder)
    assert roll.users(folder) == ["here"]


def test_a_folder_without_rolls_has_nothing_that_is_used(folder: Path) -> None:
    assert roll.users(folder) == []
    roll.sweep(folder, "*.row")
    assert left(folder) == set()
