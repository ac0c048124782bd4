"""What may be imported: files below folders that the administrator named, wherever links lead."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from core.config import Settings
from core.errors import NotFound, Unprocessable
from core.pictures.reference import open_file
from core.pictures.refusal import Refused


@dataclass(frozen=True)
class Roots:
    """``folders`` are absolute and free of links."""

    folders: tuple[Path, ...]

    @classmethod
    def of(cls, settings: Settings) -> "Roots":
        return cls(tuple(root.expanduser().resolve() for root in settings.import_roots))

    def require(self, path: Path) -> Path:
        """``path`` without links.

        Raises:
            Unprocessable: it is below no root; names the setting.
            NotFound: it is not there.
        """
        if not self.folders:
            raise Unprocessable(
                "No folder may be imported from: name those that may in STILLROOM_IMPORT_ROOTS, "
                "such as STILLROOM_IMPORT_ROOTS='[\"/data\"]'."
            )
        real = path.expanduser().resolve()
        if not self._hold(real):
            named = ", ".join(map(str, self.folders))
            raise Unprocessable(
                f"{real} is not below {named}: move it there, or add its folder to "
                "STILLROOM_IMPORT_ROOTS."
            )
        if not real.exists():
            raise NotFound(f"{real} is not there.")
        return real

    @contextmanager
    def opened(self, path: Path, name: str) -> Iterator[BinaryIO]:
        """The file at ``path``. Where it truly lies is asked of what was opened: nobody can put a
        link in its place in between.

        Raises:
            Refused: it leads out of the roots, or is no file, or cannot be read.
        """
        try:
            file = open_file(path)
        except FileNotFoundError as error:
            raise Refused("file_missing", f"{name} is not there.") from error
        except OSError as error:
            why = error.strerror or "it is a folder, a pipe or a device"
            raise Refused("file_unreadable", f"{name} cannot be read: {why}.") from error
        with file:
            if not self._hold(Path(os.readlink(f"/proc/self/fd/{file.fileno()}"))):
                raise Refused(
                    "leads_outside",
                    f"{name} is a link that leads out of STILLROOM_IMPORT_ROOTS: put the file "
                    "itself there.",
                )
            yield file

    def _hold(self, real: Path) -> bool:
        return any(real.is_relative_to(root) for root in self.folders)
