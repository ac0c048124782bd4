"""An upload, file by file: pictures cleaned and stored, captions matched, refusals explained.

Pixels are unpacked and stored outside any transaction; the rows that name them follow in one.
"""

import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import BinaryIO, Literal

from sqlalchemy.orm import Session

from core import crash
from core.artifacts import deletions
from core.artifacts.store import Store
from core.config import Settings
from core.datasets import archives, captions, inspection, pixels, service
from core.datasets.captions import Caption, Names, NoSuchPicture
from core.datasets.decoder_pool import DecoderPool
from core.db.engine import Database
from core.db.models import Image
from core.errors import NoUsableFile, Problem
from core.files.digest import sha256_of_open
from core.files.names import shown
from core.ids import new_id
from core.owners import quotas
from core.pictures import cleaning
from core.pictures.cleaning import Picture
from core.pictures.refusal import Flaw, Refused

Kind = Literal["image", "caption", "metadata", "archive", "unknown"]
MAX_FLAWS = 20
"""Told of one file; a long table of captions may be wrong in every line."""
MAX_PROBLEMS = 50
"""Told of one upload of which nothing can be used."""


@dataclass(frozen=True)
class Upload:
    """One file as sent. ``filename`` is text, whatever it looks like; ``content`` has a
    descriptor, or gets one when it is asked for it."""

    filename: str
    content: BinaryIO


@dataclass
class Item:
    """What became of one file. ``id`` is that of its picture."""

    place: int
    """Of the upload it came in, from 0."""
    filename: str
    kind: Kind = "unknown"
    id: str | None = None
    flaws: list[Flaw] = field(default_factory=list)
    used: bool = False

    def flaw(self, flaw: Flaw) -> None:
        if len(self.flaws) < MAX_FLAWS:
            self.flaws.append(flaw)


def receive(
    database: Database,
    store: Store,
    decoders: DecoderPool,
    settings: Settings,
    *,
    owner: str,
    dataset_id: str,
    uploads: Sequence[Upload],
) -> list[Item]:
    """Takes what can be taken, in order; a bad file is told of and the rest goes on.

    Raises:
        NotFound, DatasetFrozen: of the dataset.
        NoUsableFile: nothing at all could be taken.
        TooMany: the owner stores too much; of this upload nothing is kept then.
    """
    with database.read() as session:
        stored_bytes = quotas.stored_bytes(session, owner) if settings.max_stored_bytes else 0
        dataset = service.get_changeable(session, owner, dataset_id)
        known = service.images_of(session, dataset)
    batch = _Batch(store, decoders, settings, dataset_id, known, stored_bytes)
    with deletions.unless_kept(database, store, batch.folder):
        for place, upload in enumerate(uploads):
            batch.take(place, shown(upload.filename) or f"file-{place}", upload.content)
        batch.match_captions()
        batch.require_some_use()
        with database.write() as session:
            batch.record(session, owner)
    return batch.items


class _Batch:
    """One upload under way."""

    def __init__(
        self,
        store: Store,
        decoders: DecoderPool,
        settings: Settings,
        dataset_id: str,
        known: Sequence[Image],
        stored_bytes: int,
    ) -> None:
        self.items: list[Item] = []
        self.folder = f"datasets/{dataset_id}/{new_id('upl')}/"
        """Of the store, for this upload alone: so that what a dead one left is found."""
        self._store = store
        self._decoders = decoders
        self._settings = settings
        self._dataset_id = dataset_id
        self._known = known
        self._stored_bytes = stored_bytes
        """Of the owner, with what this upload has added."""
        self._ids = {image.sha256: image.id for image in known}
        self._new: dict[str, Image] = {}
        self._named: list[tuple[str, str]] = []
        self._texts: list[tuple[Item, Caption]] = []
        self._max_texts = 2 * settings.max_dataset_images
        self._max_members = settings.max_zip_entries
        """Still to come, of all zips together."""
        self._captions: dict[str, str] = {}

    def take(self, place: int, filename: str, content: BinaryIO, *, inside: bool = False) -> None:
        """Finds out what a file is, by its content first, and keeps it."""
        item = self._item(place, filename)
        head = content.read(cleaning.HEAD_BYTES)
        content.seek(0)
        try:
            if archives.is_unsafe(filename):
                raise Refused("unsafe_path", f"{filename!r} leads out of its folder: rename it.")
            if cleaning.format_of(head):
                item.kind = "image"
                self._take_picture(item, content)
            elif archives.is_zip(head):
                item.kind = "archive"
                self._take_archive(item, content, inside)
            else:
                self._take_words(item, content, head)
        except Refused as refused:
            item.flaw(refused.flaw)

    def match_captions(self) -> None:
        sent = Names(self._named)
        there = Names((image.filename, image.id) for image in self._known)
        for item, caption in self._texts:
            try:
                self._captions[captions.image_for(caption, sent, there)] = caption.text
                item.used = True
            except NoSuchPicture as error:
                item.flaw(Flaw(error.code, str(error)))

    def require_some_use(self) -> None:
        if any(item.used for item in self.items):
            return
        errors = [
            Problem(f"/files/{item.place}", flaw.code, flaw.detail)
            for item in self.items
            for flaw in item.flaws
        ][:MAX_PROBLEMS]
        count = len({item.place for item in self.items})
        raise NoUsableFile(
            f"None of the {count} files can be used: {errors[0].detail}"
            if errors
            else "There is no file to use in this upload: send pictures in the field `files`.",
            errors=errors,
        )

    def record(self, session: Session, owner: str) -> None:
        """The rows, once nobody else can have sent the same bytes or frozen the dataset."""
        dataset = service.get_changeable(session, owner, self._dataset_id)
        there = {image.sha256: image.id for image in service.images_of(session, dataset)}
        meanwhile = {self._new[sha].id: there[sha] for sha in self._new.keys() & there.keys()}
        for item in self.items:
            if item.id in meanwhile:
                item.id = meanwhile[item.id]
                item.flaw(_already_there(item.filename))
        fresh = [image for image in self._new.values() if image.id not in meanwhile]
        if fresh:
            quotas.hold(session, owner)
            more_bytes = sum(image.stored_bytes or 0 for image in fresh)
            quotas.require_storage(session, owner, self._settings, more_bytes)
        service.add_images(session, fresh)
        kept = {*there.values(), *(image.id for image in fresh)}
        self._tell_of_deleted(kept)
        texts = {meanwhile.get(id, id): text for id, text in self._captions.items()}
        service.set_captions(session, {id: text for id, text in texts.items() if id in kept})
        self._tell_of(inspection.flaws_of_files(session, dataset, fresh))
        if fresh:
            deletions.keep(session, self.folder)
            others = [image for image in self._new.values() if image.id in meanwhile]
            deletions.plan(session, *map(pixels.stored_at, others))

    def _tell_of_deleted(self, kept: Collection[str]) -> None:
        """Of pictures that were there when the upload began, and that somebody deleted since."""
        for item in self.items:
            if item.id and item.id not in kept:
                item.id, item.flaws = None, [_deleted_meanwhile(item.filename)]

    def _tell_of(self, flaws: Mapping[str, Sequence[Flaw]]) -> None:
        """Once of each new picture, beside the first file that is it."""
        untold = dict(flaws)
        for item in self.items:
            for flaw in untold.pop(item.id or "", ()):
                item.flaw(flaw)

    def _item(self, place: int, filename: str) -> Item:
        item = Item(place, filename)
        self.items.append(item)
        return item

    def _take_picture(self, item: Item, content: BinaryIO) -> None:
        sha256 = sha256_of_open(content)
        item.id = self._ids.get(sha256)
        if item.id:
            item.flaw(_already_there(item.filename))
        else:
            item.id = self._keep(item.filename, sha256, content)
        item.used = True
        self._named.append((item.filename, item.id))

    def _keep(self, filename: str, sha256: str, content: BinaryIO) -> str:
        self._require_room(filename)
        self._require_storage(content)
        with tempfile.TemporaryFile() as cleaned:  # without a name: a kill leaves nothing behind
            picture = self._decoders.clean(content, filename, cleaned)
            image = self._row(filename, sha256, picture, cleaned)
            cleaned.seek(0)
            self._new[sha256] = image
            self._stored_bytes += image.stored_bytes or 0
            self._store.put_file(pixels.stored_at(image), cleaned)
        crash.point("inside an upload")
        self._ids[sha256] = image.id
        return image.id

    def _require_room(self, filename: str) -> None:
        if len(self._ids) >= self._settings.max_dataset_images:
            raise Refused(
                "dataset_full",
                f"{filename} is one too many: {self._settings.max_dataset_images:,} pictures are "
                "the most.",
            )

    def _require_storage(self, content: BinaryIO) -> None:
        """Before anything is decoded; the last word is had when the rows are written."""
        size = content.seek(0, 2)
        content.seek(0)
        if self._settings.max_stored_bytes is not None:
            quotas.require_within(self._settings.max_stored_bytes, self._stored_bytes, size)

    def _row(self, filename: str, sha256: str, picture: Picture, cleaned: BinaryIO) -> Image:
        image_id = new_id("img")
        return Image(
            id=image_id,
            dataset_id=self._dataset_id,
            filename=filename,
            width=picture.width,
            height=picture.height,
            bytes=picture.bytes,
            turned=picture.turned,
            sha256=sha256,
            stored_sha256=sha256_of_open(cleaned),
            stored_bytes=cleaned.seek(0, 2),
            store_key=f"{self.folder}{image_id}.png",
        )

    def _take_archive(self, item: Item, content: BinaryIO, inside: bool) -> None:
        if inside:
            raise Refused("nested_archive", f"{item.filename} is a zip in a zip: unpack it first.")
        max_members = self._max_members
        for member in archives.members(content, item.filename, self._settings, max_members):
            self._max_members -= 1
            name = shown(f"{item.filename}/{member.name}")
            if member.content is not None:
                self.take(item.place, name, member.content, inside=True)
            elif member.flaw:
                self._item(item.place, name).flaw(member.flaw)

    def _room_for_texts(self) -> int:
        return self._max_texts - len(self._texts)

    def _take_words(self, item: Item, content: BinaryIO, head: bytes) -> None:
        """Text has no signature: here the name decides."""
        name = PurePosixPath(item.filename)
        if name.suffix.lower() == ".txt":
            item.kind = "caption"
            if not self._room_for_texts():
                raise captions.too_many(item.filename)
            self._texts.append((item, captions.read_text(content, item.filename)))
        elif name.name.lower() == "metadata.jsonl":
            item.kind = "metadata"
            for line in captions.read_table(content, item.filename, self._room_for_texts()):
                if isinstance(line, Refused):
                    item.flaw(line.flaw)
                else:
                    self._texts.append((item, line))
        else:
            raise cleaning.refuse_unknown(head, item.filename)


def _deleted_meanwhile(filename: str) -> Flaw:
    return Flaw(
        "deleted_meanwhile",
        f"The dataset held the picture in {filename}, which somebody deleted just now: send it "
        "again if it is to be there.",
    )


def _already_there(filename: str) -> Flaw:
    return Flaw("already_there", f"The dataset holds the picture in {filename} already.")
