"""A picture that stays where its owner keeps it: read anew each time, and only as it was."""

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL.Image import Image

from core.errors import PictureChanged, PictureGone, PictureUnreadable
from core.pictures import cleaning
from core.pictures.refusal import Refused


@dataclass(frozen=True, slots=True)
class Reference:
    """``size_bytes`` bytes at ``offset`` of a file, which were examined once; 0: all of the file.

    Whatever lies there is believed by its ``sha256`` alone, so a link that leads elsewhere by now
    shows nobody anything new. ``name`` is what sentences call it: they hold no path of this host.
    """

    path: Path
    name: str
    offset: int
    size_bytes: int
    sha256: str

    def open(self) -> Image:
        """Its pixels, as those of the same picture uploaded.

        Raises:
            PictureGone, PictureChanged, PictureUnreadable
        """
        try:
            return cleaning.decode(self.read(), self.name)
        except Refused as refused:
            raise unreadable(refused) from refused

    def read(self) -> bytes:
        """Its bytes, once it is sure that they are those that were imported.

        Raises:
            PictureGone, PictureChanged
        """
        try:
            with open_file(self.path) as file:
                size_bytes = os.fstat(file.fileno()).st_size
                file.seek(self.offset)
                content = file.read(self.size_bytes)
        except OSError as error:
            raise PictureGone(
                f"{self.name} cannot be read where it lay when its dataset was imported: put the "
                "file back, or mount its folder on this host too, at the same path."
            ) from error
        grew = self.offset == 0 and size_bytes != self.size_bytes
        if grew or hashlib.sha256(content).hexdigest() != self.sha256:
            raise PictureChanged(
                f"{self.name} holds other bytes than when its dataset was imported: bring the file "
                "back as it was, or import the dataset again."
            )
        return content


def unreadable(refused: Refused) -> PictureUnreadable:
    """Of one whose pixels turn out to be what its header did not tell."""
    return PictureUnreadable(
        f"{refused.flaw.detail} Its header was well when it was imported: mend the file and import "
        "the dataset again, with --decode to find all that are damaged."
    )


def open_file(path: Path) -> BinaryIO:
    """An ordinary file; a pipe or a device that took its place is not waited for.

    Raises:
        OSError
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is no file")
    return os.fdopen(descriptor, "rb")
