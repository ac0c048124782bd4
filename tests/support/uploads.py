"""Files as people send them: good pictures, bad ones, and zips of both."""

import hashlib
import io
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

from PIL import Image

RED = (200, 30, 30)


def picture(
    format: str = "PNG",
    size: tuple[int, int] = (64, 48),
    color: Any = RED,
    mode: str = "RGB",
    **options: Any,
) -> bytes:
    out = io.BytesIO()
    Image.new(mode, size, color).save(out, format, **options)
    return out.getvalue()


@contextmanager
def opened(content: bytes) -> Iterator[BinaryIO]:
    """As a server has it: a file with a descriptor."""
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.seek(0)
        yield cast(BinaryIO, file)


def garbled(format: str) -> bytes:
    """A picture that is whole in length, and whose middle is of zeros."""
    content = picture(format)
    middle = b"\0" * (len(content) - 60)
    return content[:30] + middle + content[-30:]


def animation(format: str) -> bytes:
    frames = [Image.new("RGB", (16, 16), (shade, 0, 0)) for shade in (0, 120, 240)]
    out = io.BytesIO()
    frames[0].save(out, format, save_all=True, append_images=frames[1:], duration=50)
    return out.getvalue()


def sideways() -> bytes:
    """A JPEG of 64 x 32 that the camera says to turn: its left half is red, its right blue."""
    image = Image.new("RGB", (64, 32), (0, 0, 255))
    image.paste((255, 0, 0), (0, 0, 32, 32))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to see it upright
    exif[0x010F] = "Secret camera"
    out = io.BytesIO()
    image.save(out, "JPEG", exif=exif, quality=95)
    return out.getvalue()


def png_header(width: int, height: int, *, depth: int = 8, color: int = 2) -> bytes:
    """A PNG that promises pixels and holds almost none."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 64)
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def webp_header(width: int, height: int, *, flags: int = 0) -> bytes:
    """A WebP that promises a canvas and holds nothing."""
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    chunk = b"VP8X" + (10).to_bytes(4, "little") + bytes([flags, 0, 0, 0]) + sides
    return b"RIFF" + (len(chunk) + 4).to_bytes(4, "little") + b"WEBP" + chunk


def zip_of(members: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def zip_with_link(name: str, target: str, mode: int = 0o120777) -> bytes:
    """Or with what else ``mode`` says that it is."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        entry = zipfile.ZipInfo(name)
        entry.create_system = 3
        entry.external_attr = mode << 16
        archive.writestr(entry, target)
    return out.getvalue()


def encrypted(archive: bytes) -> bytes:
    """The same zip, claiming that its first member needs a password."""
    changed = bytearray(archive)
    changed[6] |= 1
    changed[archive.index(b"PK\x01\x02") + 8] |= 1
    return bytes(changed)


def chunks_of(png: bytes) -> list[bytes]:
    """The kinds of chunk in a PNG, in order."""
    kinds, at = [], 8
    while at < len(png):
        kinds.append(png[at + 4 : at + 8])
        at += 12 + int.from_bytes(png[at : at + 4], "big")
    return kinds


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
