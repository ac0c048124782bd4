"""A picture read once where it lies: its bytes hashed, its header checked, its row made."""

import hashlib
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.config import Settings
from core.datasets.importing.candidate import Candidate
from core.datasets.importing.roots import Roots
from core.pictures import cleaning
from core.pictures.refusal import Flaw, Refused


@dataclass(frozen=True)
class Examination:
    """``decodes``: every pixel too, which finds damage that a header does not tell."""

    folder: Path
    roots: Roots
    settings: Settings
    decodes: bool = False

    def row(self, candidate: Candidate) -> dict[str, Any] | Flaw:
        """What the table of images is to hold of it, but for ids; or why it cannot be used."""
        name = candidate.name
        try:
            content = self._read(candidate)
            picture = cleaning.examine(io.BytesIO(content), name, self.settings)
            if self.decodes:
                cleaning.decode(content, name)
        except Refused as refused:
            return refused.flaw
        except OSError as error:
            return Flaw("file_unreadable", f"{name} cannot be read: {error.strerror}.")
        return {
            "filename": name,
            "width": picture.width,
            "height": picture.height,
            "turned": picture.turned,
            "bytes": picture.bytes,
            "sha256": hashlib.sha256(content).hexdigest(),
            "caption": candidate.caption,
            "path": candidate.path,
            "offset": candidate.offset,
        }

    def _read(self, candidate: Candidate) -> bytes:
        """Held in memory: a picture is smaller than ``max_image_bytes``."""
        name = candidate.name
        with self.roots.opened(self.folder / candidate.path, name) as file:
            size_bytes = candidate.size_bytes
            if size_bytes is None:
                size_bytes = os.fstat(file.fileno()).st_size
            cleaning.require_size(size_bytes, name, self.settings)
            file.seek(candidate.offset)
            content = file.read(size_bytes)
        if len(content) < size_bytes:
            raise Refused("truncated", f"{name} ends before it should.")
        return content
