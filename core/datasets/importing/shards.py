"""Shards of WebDataset: tars in which a sample is a run of members that share their name up to the
first dot, such as `0001.jpg` and `0001.txt`, or `0001.json` with `caption` or `text`.
"""

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from core.datasets import archives, captions
from core.datasets.importing.candidate import Candidate, Found
from core.datasets.importing.roots import Roots
from core.files.names import shown
from core.pictures.refusal import Flaw, Refused

_PICTURES = ("jpg", "jpeg", "png", "webp")
_WORDS = ("txt", "json")
_GZIP = b"\x1f\x8b"
_DAMAGED = (tarfile.TarError, ValueError, OverflowError, EOFError, OSError)


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    offset: int
    size_bytes: int

    @property
    def _parts(self) -> tuple[str, str, str]:
        return PurePosixPath(self.name).name.partition(".")

    @property
    def sample(self) -> str:
        return str(PurePosixPath(self.name).with_name(self._parts[0] or "."))

    @property
    def field(self) -> str:
        return self._parts[2].lower()


def found(folder: Path, names: Sequence[str], roots: Roots) -> Found:
    """Shard by shard, in the order of their members; of each the headers are read."""
    for name in names:
        try:
            with roots.opened(folder / name, shown(name)) as file:
                yield from _samples(file, name)
        except Refused as refused:
            yield refused.flaw


def _samples(file: BinaryIO, shard: str) -> Found:
    odd: list[Flaw] = []
    for _, sample in groupby(_members(file, shard, odd), key=lambda member: member.sample):
        fields = list(sample)
        yield from odd
        odd.clear()
        yield from _pair(file, shard, fields)
    yield from odd


def _members(file: BinaryIO, shard: str, odd: list[Flaw]) -> Iterator[_Member]:
    """Files in a shard. ``odd`` is told of what is none.

    Raises:
        Refused: it is damaged. Samples before that are good.
    """
    if file.read(2) == _GZIP:
        raise Refused(
            "unsupported_compression", f"{shown(shard)} is packed with gzip: unpack it to a .tar."
        )
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # or it keeps all of them
                name = f"{shard}/{member.name}"
                if member.isdir() or archives.is_leftover(member.name):
                    continue
                if not member.isreg() or member.issparse():
                    odd.append(Flaw("link", f"{shown(name)} is a link or a device, not a file."))
                else:
                    yield _Member(member.name, member.offset_data, member.size)
    except _DAMAGED as error:
        raise Refused("truncated", f"{shown(shard)} is no tar, or damaged on the way.") from error


def _pair(file: BinaryIO, shard: str, fields: list[_Member]) -> Found:
    """The picture of a sample, with its words; other fields are passed over."""
    pictures = [member for member in fields if member.field in _PICTURES]
    words = sorted(
        (member for member in fields if member.field in _WORDS),
        key=lambda member: _WORDS.index(member.field),
    )
    if not pictures:
        yield from (_lonely(shard, member) for member in words[:1])
        return
    picture, *others = pictures
    try:
        caption = _read(file, shard, words[0]) if words else None
        name = shown(f"{shard}/{picture.name}")
        yield Candidate(shard, name, caption, picture.offset, picture.size_bytes)
    except Refused as refused:
        yield refused.flaw
    for other in others:
        name = shown(f"{shard}/{other.name}")
        yield Flaw("second_picture", f"{name} is not the first picture of its sample.")


def _lonely(shard: str, words: _Member) -> Flaw:
    name = shown(f"{shard}/{words.name}")
    return Flaw("caption_without_image", f"{name} has no picture in its sample.")


def _read(file: BinaryIO, shard: str, words: _Member) -> str | None:
    name = shown(f"{shard}/{words.name}")
    file.seek(words.offset)
    raw = file.read(min(words.size_bytes, captions.MAX_TEXT_BYTES + 1))
    if words.field == "txt":
        return captions.read_text(io.BytesIO(raw), name).text
    try:
        told = json.loads(raw)
        text = told.get("caption", told.get("text"))
        return None if text is None else captions.checked(text, name)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise Refused(
            "bad_metadata", f"{name} is no JSON object with a caption, or a very long one."
        ) from error
