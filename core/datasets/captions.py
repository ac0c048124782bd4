"""Captions as they come beside pictures: ``dog.txt`` for ``dog.png``, or a ``metadata.jsonl``."""

import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO, Literal

from core.config import MIB
from core.pictures.refusal import Refused

MAX_CHARACTERS = 4000
"""As long as a prompt may be."""
MAX_TEXT_BYTES = 64 * 1024
MAX_TABLE_BYTES = 4 * MIB


@dataclass(frozen=True)
class Caption:
    """A text for the picture that ``names`` says: with its extension, or without."""

    picture: str
    by: Literal["stem", "name"]
    text: str


class NoSuchPicture(Exception):
    """No picture, or more than one, has that name."""

    def __init__(self, caption: Caption, found: int) -> None:
        which = "no picture" if not found else f"{found} pictures"
        super().__init__(f"There is {which} named {caption.picture!r} to take this caption.")
        self.code = "caption_ambiguous" if found else "caption_without_image"


class Names:
    """Finds pictures by their names: the exact one first, else the last part of it."""

    def __init__(self, named: Iterable[tuple[str, str]]) -> None:
        """``named`` are pairs of filename and image id."""
        self._ids: dict[tuple[str, str], dict[str, None]] = {}
        for filename, image_id in named:
            for key in _keys(filename):
                self._ids.setdefault(key, {})[image_id] = None

    def find(self, caption: Caption, *, exact: bool) -> list[str]:
        name = caption.picture if exact else PurePosixPath(caption.picture).name
        return list(self._ids.get((f"{caption.by} {'exact' if exact else 'last'}", name), ()))


def image_for(caption: Caption, sent: Names, there: Names) -> str:
    """The id that ``caption`` means: among those sent with it first, then those there before."""
    for exact in (True, False):
        for names in (sent, there):
            found = names.find(caption, exact=exact)
            if len(found) == 1:
                return found[0]
            if found:
                raise NoSuchPicture(caption, len(found))
    raise NoSuchPicture(caption, 0)


def read_text(file: BinaryIO, filename: str) -> Caption:
    """The caption in ``dog.txt``, for whatever picture is called ``dog``."""
    raw = file.read(MAX_TEXT_BYTES + 1)
    if len(raw) > MAX_TEXT_BYTES:
        raise _too_long(filename)
    text = _decoded(raw, filename).strip()
    _require_short(text, filename)
    return Caption(_without_extension(filename), "stem", text)


def read_table(file: BinaryIO, filename: str, max_lines: int) -> Iterator[Caption | Refused]:
    """One caption a line of a ``metadata.jsonl``; its names start where the file itself lies.

    Raises:
        Refused: the file as a whole is no text, or too long. No line was read then.
    """
    folder = PurePosixPath(filename).parent
    raw = file.read(MAX_TABLE_BYTES + 1)
    if len(raw) > MAX_TABLE_BYTES:
        raise Refused("too_large", f"{filename} is larger than {MAX_TABLE_BYTES / MIB:g} MiB.")
    text = _decoded(raw, filename).rstrip()
    if text.count("\n") >= max_lines:
        raise too_many(filename)
    for number, line in enumerate(io.StringIO(text), start=1):
        if line.strip():
            yield read_line(line, f"line {number} of {filename}", folder)


def read_line(line: str | bytes, where: str, folder: PurePosixPath) -> Caption | Refused:
    """A line of a ``metadata.jsonl`` that lies in ``folder``."""
    try:
        row = json.loads(line)
        return Caption(str(folder / _kept(row["file_name"])), "name", checked(row["text"], where))
    except Refused as refused:
        return refused
    except (ValueError, KeyError, TypeError, RecursionError):
        return Refused(
            "bad_metadata", f'{where} is not a JSON object like {{"file_name": "…", "text": "…"}}.'
        )


def read_row(name: object, text: object, where: str) -> Caption | Refused:
    """The same of a table's columns."""
    try:
        return Caption(str(PurePosixPath(_kept(name))), "name", checked(text, where))
    except Refused as refused:
        return refused
    except (ValueError, TypeError):
        return Refused("bad_metadata", f"{where} is not a name and a text.")


def checked(text: object, where: str) -> str:
    """A caption, whoever says it.

    Raises:
        Refused: it is too long.
        TypeError, ValueError: it is no text that can be kept.
    """
    stripped = _kept(text).strip()
    _require_short(stripped, where)
    return stripped


def too_many(filename: str) -> Refused:
    return Refused(
        "too_many_captions",
        f"{filename} has more captions than one upload may: send it by itself, or in parts.",
    )


def _decoded(raw: bytes, filename: str) -> str:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Refused("not_text", f"{filename} is not UTF-8 text.") from error
    if "\0" in text:
        raise Refused("not_text", f"{filename} is not text: it holds zero bytes.")
    return text


def _kept(text: object) -> str:
    """JSON can say zero bytes and halves of surrogate pairs; no database keeps them."""
    if not isinstance(text, str):
        raise TypeError
    text.encode()
    if "\0" in text:
        raise ValueError("a zero byte")
    return text


def _require_short(text: str, where: str) -> None:
    if len(text) > MAX_CHARACTERS:
        raise _too_long(where)


def _too_long(where: str) -> Refused:
    return Refused("caption_too_long", f"{where} is longer than {MAX_CHARACTERS} characters.")


def _without_extension(filename: str) -> str:
    return str(PurePosixPath(filename).with_suffix(""))


def _keys(filename: str) -> Iterator[tuple[str, str]]:
    stem = _without_extension(filename)
    yield "name exact", filename
    yield "name last", PurePosixPath(filename).name
    yield "stem exact", stem
    yield "stem last", PurePosixPath(stem).name
