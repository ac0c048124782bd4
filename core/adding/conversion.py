"""The pipeline folder of what was found, written a tensor at a time."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from core.adding import folder
from core.adding.family import INDEX, SCHEDULER, TOKENIZERS, WEIGHTS
from core.adding.found import Found, Part, Piece
from core.errors import NotABase
from core.files import safetensors_header
from core.files.atomic import sync
from core.files.safetensors_header import ITEM_BYTES, METADATA
from core.files.safetensors_values import are_finite

_CHUNK_BYTES = 1 << 22


def weigh(found: Found) -> int:
    """Bytes that the folder will hold, to a few kilobytes."""
    return sum(piece.bytes for part in found.parts.values() for piece in part.values())


def write(found: Found, tokenizers: Path, into: Path, tell: Callable[[str], None]) -> None:
    """Fills ``into``, a new folder, and syncs it to the disk.

    Memory holds four megabytes, and the one tensor that is transposed.

    Raises:
        NotABase: a value is infinite or not a number, or the file got shorter meanwhile.
    """
    into.mkdir(parents=True)
    _say(into / INDEX, found.index)
    _say(into / SCHEDULER, found.scheduler)
    for part, pieces in found.parts.items():
        size = sum(piece.bytes for piece in pieces.values())
        tell(f"{part} ({size / 1e6:,.1f} MB)")
        _say(into / part / "config.json", found.configs[part])
        _write_part(pieces, into / part / WEIGHTS[part])
    for name in TOKENIZERS:
        (into / name).mkdir()
        for path in folder.tokenizer_files(tokenizers / name):
            shutil.copyfile(path, into / name / path.name)
    for path in into.rglob("*"):
        sync(path)
    sync(into)


def _say(path: Path, told: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(told, indent=2, sort_keys=True), "utf-8")


def _write_part(pieces: Part, path: Path) -> None:
    # wide numbers first: each tensor then lies at a multiple of its width, as readers expect
    order = sorted(pieces, key=lambda key: (-ITEM_BYTES[pieces[key].dtype], key))
    with path.open("xb") as file:
        file.write(_header({key: pieces[key] for key in order}))
        for key in order:
            for chunk in _chunks(pieces[key]):
                if not are_finite(chunk, pieces[key].dtype):
                    raise _not_finite(key, pieces[key])
                file.write(chunk)


def _not_finite(key: str, piece: Piece) -> NotABase:
    return NotABase(
        f"`{key}` of {piece.path.name} holds a value that is infinite or not a number: every "
        "picture would be black. Fetch it again, or merge it again in float32."
    )


def _header(pieces: Part) -> bytes:
    entries: dict[str, object] = {METADATA: {"format": "pt"}}
    begin = 0
    for key, piece in pieces.items():
        end = begin + piece.bytes
        entries[key] = {
            "dtype": piece.dtype,
            "shape": [*piece.shape],
            "data_offsets": [begin, end],
        }
        begin = end
    return safetensors_header.text(entries)


def _chunks(piece: Piece) -> Iterator[bytes]:
    with piece.path.open("rb") as file:
        file.seek(piece.begin)
        if piece.transposed:
            yield _turned(piece, _exactly(file, piece.bytes))
            return
        left = piece.bytes
        while left:
            chunk = _exactly(file, min(left, _CHUNK_BYTES))
            left -= len(chunk)
            yield chunk


def _turned(piece: Piece, content: bytes) -> bytes:
    """Whatever its numbers mean: none is looked at."""
    rows, _ = piece.shape
    numbers = memoryview(content).cast("H" if ITEM_BYTES[piece.dtype] == 2 else "I")
    return b"".join(numbers[row::rows].tobytes() for row in range(rows))


def _exactly(file: IO[bytes], count: int) -> bytes:
    content = file.read(count)
    if len(content) < count:
        raise NotABase(f"{file.name} got shorter while it was read.")
    return content
