"""Shards of WebDataset with many tiny pairs, quickly made: each picture is another."""

import io
import struct
import tarfile
import zlib
from pathlib import Path

from tests.support import uploads

PER_SHARD = 10_000


def write(folder: Path, count: int) -> None:
    """``count`` pairs of a picture and its caption."""
    folder.mkdir(parents=True)
    for first in range(0, count, PER_SHARD):
        with tarfile.open(folder / f"{first // PER_SHARD:05}.tar", "w") as tar:
            for number in range(first, min(first + PER_SHARD, count)):
                add(tar, f"{number:07}.png", numbered(number))
                add(tar, f"{number:07}.txt", f"a picture of the number {number}".encode())


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def numbered(number: int) -> bytes:
    """A picture with a number in a chunk of its own, so that no two are the same."""
    text = b"tEXt" + b"number\0" + str(number).encode()
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    return _PNG[:-12] + chunk + _PNG[-12:]  # before the end


_PNG = uploads.picture(size=(16, 16))
