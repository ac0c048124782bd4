"""Tensors that took work, on disk by the hash of all that made them; shared between runs.

A run works on hard links of its own. What is swept from the cache meanwhile is still there for it,
and gone with the run's folder. Its dataset's roll names each row that it uses: what is on no roll
may go.
"""

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file

from core.files.atomic import replacing
from core.files.roll import Roll
from core.training.shelf import Row

CAP_BYTES = 20 * 1024**3


def key_of(**facts: object) -> str:
    """The hash of what makes a row: whatever may change a bit of it must be among the facts."""
    canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


@dataclass
class Cache:
    """``folder`` is shared, ``links`` the run's own, on the same file system; without a ``roll``
    nobody learns who uses what."""

    folder: Path
    links: Path
    roll: Roll | None = None
    cap_bytes: int = CAP_BYTES
    hits: int = 0
    misses: int = 0

    def path(self, key: str) -> Path:
        """Where the run has a row."""
        return self.links / f"{key}.safetensors"

    def read(self, key: str) -> Row:
        """A row that the run has."""
        return load_file(self.path(key))

    def take(self, key: str) -> bool:
        """Gives the run a row that somebody has made before; False where nobody has."""
        mine, shared = self.path(key), self._shared(key)
        self._enrol(key)
        if mine.exists():
            return True
        self.links.mkdir(parents=True, exist_ok=True)
        try:
            os.link(shared, mine)
            os.utime(shared)  # what was used last is swept last
        except FileNotFoundError:
            self.misses += 1
            return mine.exists()
        self.hits += 1
        return True

    def put(self, key: str, row: Row) -> None:
        """Keeps a row, for this run and the next."""
        mine, shared = self.path(key), self._shared(key)
        self._enrol(key)
        with replacing(mine) as aside:
            save_file(row, aside)
        shared.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            os.link(mine, shared)
        if self.roll and not self.roll.counts:  # its dataset went, and the sweep has been here
            shared.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Takes the rows that were used longest ago out of the shared folder, until what is left is
        within the cap."""
        files = []
        for path in self.folder.rglob("*.safetensors"):
            with suppress(FileNotFoundError):  # another run sweeps too
                files.append((path.stat().st_mtime_ns, path.stat().st_size, path))
        excess = sum(size for _, size, _ in files) - self.cap_bytes
        for _, size, path in sorted(files):
            if excess <= 0:
                return
            path.unlink(missing_ok=True)
            excess -= size

    def _enrol(self, key: str) -> None:
        if self.roll:
            self.roll.add(key)

    def _shared(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"
