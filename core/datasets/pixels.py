"""The pixels of a dataset's picture: stored here when it was uploaded, elsewhere when imported."""

import io
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from core.artifacts.store import CHUNK_BYTES, Store
from core.datasets.decoder_pool import DecoderPool
from core.db.models import Dataset, Image
from core.files.atomic import replacing
from core.pictures import cleaning
from core.pictures.reference import Reference, unreadable
from core.pictures.refusal import Refused


@dataclass(frozen=True)
class Png:
    """Cleaned, in a temporary file that goes once it is read or closed."""

    file: IO[bytes]
    size_bytes: int

    def chunks(self, start: int, end: int) -> Iterator[bytes]:
        with self.file:
            for at in range(start, end, CHUNK_BYTES):
                self.file.seek(at)
                yield self.file.read(min(CHUNK_BYTES, end - at))


def reference_to(dataset: Dataset, image: Image) -> Reference | None:
    """Where an imported picture lies; None of one that is stored."""
    if dataset.folder is None or image.path is None:
        return None
    return Reference(
        path=Path(dataset.folder) / image.path,
        name=image.filename,
        offset=image.offset or 0,
        size_bytes=image.bytes,
        sha256=image.sha256,
    )


def stored_at(image: Image) -> str:
    """The key of one that was uploaded."""
    assert image.store_key, "it was not imported"
    return image.store_key


def thumbnail(
    dataset: Dataset, image: Image, store: Store, decoders: DecoderPool, side: int
) -> bytes:
    """A PNG whose longer side has at most ``side`` pixels.

    Raises:
        PictureGone, PictureChanged, PictureUnreadable: of one that was imported.
    """
    reference = reference_to(dataset, image)
    if reference is None:
        key = stored_at(image)
        return decoders.thumbnail(lambda: store.open(key, 0, store.size(key)), side)
    whole = png(reference, decoders)
    with whole.file:
        return decoders.thumbnail(lambda: whole.chunks(0, whole.size_bytes), side)


def png(reference: Reference, decoders: DecoderPool) -> Png:
    """All of an imported picture, as ``store`` has one that was uploaded.

    Raises:
        PictureGone, PictureChanged, PictureUnreadable
    """
    file = tempfile.TemporaryFile()  # noqa: SIM115 - whoever reads it closes it
    try:
        with tempfile.TemporaryFile() as source:
            fill = partial(_copy, reference, source)
            decoders.clean(source, reference.name, file, fill=fill)
    except Refused as refused:
        file.close()
        raise unreadable(refused) from refused
    except BaseException:
        file.close()
        raise
    return Png(file, file.seek(0, io.SEEK_END))


def _copy(reference: Reference, file: IO[bytes]) -> None:
    file.write(reference.read())


def fetch(dataset: Dataset, image: Image, store: Store, path: Path) -> None:
    """Puts the picture at ``path``, as a cleaned PNG.

    Raises:
        PictureGone, PictureChanged, PictureUnreadable: of one that was imported.
    """
    reference = reference_to(dataset, image)
    if reference is None:
        store.fetch(stored_at(image), path)
        return
    with replacing(path) as aside, aside.open("wb") as file:
        cleaning.save(reference.open(), file)
