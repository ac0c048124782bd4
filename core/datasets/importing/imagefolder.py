"""A folder of pictures, and of folders of them, with captions beside: `dog.txt` for `dog.png`."""

import os
from itertools import groupby
from pathlib import Path, PurePosixPath

from core.datasets import archives, captions
from core.datasets.importing.candidate import Candidate, Found
from core.datasets.importing.roots import Roots
from core.files.names import shown
from core.pictures.cleaning import EXTENSIONS
from core.pictures.refusal import Flaw, Refused

_PICTURES = {each for extensions in EXTENSIONS.values() for each in extensions}
_HERE = PurePosixPath()


def found(folder: Path, roots: Roots, below: PurePosixPath = _HERE) -> Found:
    """By name; the names of one folder are in memory at a time, and of those above it."""
    files: list[str] = []
    folders: list[str] = []
    with os.scandir(folder / below) as entries:
        for entry in entries:
            if archives.is_leftover(entry.name):
                continue
            is_folder = entry.is_dir(follow_symlinks=False)
            (folders if is_folder else files).append(entry.name)
    files.sort(key=_stem)
    for _, of_one_name in groupby(files, key=_stem):
        yield from _pair(folder, roots, below, sorted(of_one_name))
    for name in sorted(folders):
        yield from found(folder, roots, below / name)


def _pair(folder: Path, roots: Roots, below: PurePosixPath, names: list[str]) -> Found:
    """Files that share their name but for the extension: a picture, its caption, and what else."""
    pictures = [name for name in names if _extension(name) in _PICTURES]
    words = next((name for name in names if _extension(name) == ".txt"), None)
    if words and len(pictures) != 1:
        yield _unmatched(shown(str(below / words)), len(pictures))
    for name in names:
        path = str(below / name)
        if name == words:
            continue
        if not _is_text(path):
            yield Flaw("bad_name", f"The name of {shown(path)} is not UTF-8: rename it.")
            continue
        try:
            own = words if pictures == [name] else None
            caption = _read(folder, roots, str(below / own)) if own else None
            yield Candidate(path, shown(path), caption)
        except Refused as refused:
            yield refused.flaw


def _is_text(path: str) -> bool:
    """Whether a database can keep it."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _read(folder: Path, roots: Roots, path: str) -> str:
    with roots.opened(folder / path, shown(path)) as file:
        return captions.read_text(file, shown(path)).text


def _unmatched(name: str, pictures: int) -> Flaw:
    if pictures:
        return Flaw("caption_ambiguous", f"{name} may belong to {pictures} pictures: to none then.")
    return Flaw("caption_without_image", f"{name} has no picture of its name beside it.")


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]


def _extension(name: str) -> str:
    return os.path.splitext(name)[1].lower()
