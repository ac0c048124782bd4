"""Who uses which files of a folder: a roll of keys for each user, one a line.

A key is written down before its file is there, so what no roll names nobody uses, and it may go at
any moment.
"""

from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

_ROLLS = "rolls"
_STRUCK = ".struck-"
"""Before the name of a roll that counts no longer, and whose files may be there still."""


class Roll:
    """What one user uses. Any number of processes may write to it at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: set[str] = set(_keys(path))

    @classmethod
    def of(cls, folder: Path, user: str) -> "Roll":
        """``user`` is an id of ours."""
        return cls(path_of(folder, user))

    def add(self, key: str) -> None:
        if key in self._known:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="ascii") as file:
            file.write(f"{key}\n")  # at once: lines of two processes do not mix
        self._known.add(key)

    @property
    def counts(self) -> bool:
        """False once somebody has struck it off."""
        return self.path.exists()


def path_of(folder: Path, user: str) -> Path:
    return folder / _ROLLS / user


def users(folder: Path) -> list[str]:
    """Whose rolls there are."""
    return [path.name for path in _rolls(folder) if not path.name.startswith(".")]


def strike(folder: Path, gone: Collection[str]) -> None:
    """These use nothing any more. Call ``sweep`` then; whoever dies in between has done no harm."""
    for user in gone:
        path = path_of(folder, user)
        with suppress(FileNotFoundError):  # somebody else was faster
            path.replace(path.with_name(f"{_STRUCK}{user}"))


def is_due(folder: Path) -> bool:
    """Whether somebody was struck off since the last sweep."""
    return any(path.name.startswith(_STRUCK) for path in _rolls(folder))


def sweep(folder: Path, pattern: str) -> None:
    """Takes away all files of this pattern, named by their keys, that no roll names."""
    struck = [path for path in _rolls(folder) if path.name.startswith(_STRUCK)]
    used = {key for user in users(folder) for key in _keys(path_of(folder, user))}
    for path in folder.rglob(pattern):
        if path.stem not in used:
            path.unlink(missing_ok=True)
    for path in struck:
        path.unlink(missing_ok=True)


def _rolls(folder: Path) -> list[Path]:
    below = folder / _ROLLS
    return list(below.iterdir()) if below.is_dir() else []


def _keys(path: Path) -> Iterator[str]:
    try:
        yield from path.read_text(encoding="ascii").split()
    except FileNotFoundError:
        return
