"""A folder's hash tells of every file's name and bytes, and of nothing else."""

import hashlib
from pathlib import Path

import pytest

from core.files.digest import sha256_of, sha256_of_folder


def test_a_file_is_hashed_as_hashlib_does(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"stills")
    assert sha256_of(tmp_path / "file") == hashlib.sha256(b"stills").hexdigest()


def test_a_folder_is_the_names_and_bytes_of_its_files(tmp_path: Path) -> None:
    one, same, renamed, changed = (tmp_path / name for name in ("one", "same", "other", "changed"))
    for folder, name, content in (
        (one, "a", "x"),
        (same, "a", "x"),
        (renamed, "b", "x"),
        (changed, "a", "y"),
    ):
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / name).write_text(content)
    (same / "empty").mkdir()
    assert sha256_of_folder(one) == sha256_of_folder(same)
    assert len({sha256_of_folder(each) for each in (one, renamed, changed)}) == 3


def test_a_folder_without_files_has_no_hash(tmp_path: Path) -> None:
    """A base whose files are gone must not look like every other such base."""
    for folder in (tmp_path / "not there", tmp_path):
        with pytest.raises(FileNotFoundError):
            sha256_of_folder(folder)
