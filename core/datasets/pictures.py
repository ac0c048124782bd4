"""Pictures as people send them, turned into pixels that can be trusted.

PNG, JPEG and WebP by content, whatever the name says. The header is read before the pixels: what
is too large is refused without being unpacked. What comes out is upright, 8 bit RGB or RGBA, and
carries nothing but its pixels.
"""

import hashlib
import io
import re
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, BinaryIO, Literal

from PIL import ImageOps
from PIL.Image import Image, Resampling
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from core.config import MIB, Settings
from core.datasets.refusal import Refused

Format = Literal["PNG", "JPEG", "WebP"]
EXTENSIONS: dict[Format, tuple[str, ...]] = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "WebP": (".webp",),
}
HEAD_BYTES = 32
"""Enough to know every format below, and the canvas of a WebP."""

_OTHERS = (
    (0, b"GIF8", "GIF"),
    (0, b"BM", "BMP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    (0, b"8BPS", "Photoshop"),
    (0, b"%PDF", "PDF"),
    (0, b"\xff\x0a", "JPEG XL"),
)
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError)
_BROKEN_TOO = (struct.error, OverflowError, MemoryError)
MAX_SCANS = 100
"""Progressive JPEGs have about ten."""
MAX_SEGMENTS = 5_000
"""A picture at the byte cap that is all metadata has a thousand."""
_JPEG_SEGMENT = re.compile(rb"\xff([\xc0-\xcf\xd9-\xfe])")
"""Markers with a length behind them, and the end; among pixels none of them can stand."""
_JPEG_SCAN, _JPEG_END = b"\xda", b"\xd9"
_decoders = threading.BoundedSemaphore(2)
"""A picture at the cap takes about a gigabyte while it is turned and converted."""


@dataclass(frozen=True)
class Picture:
    """What a cleaned picture is: its sides upright, and its ``bytes`` as sent."""

    width: int
    height: int
    bytes: int


def format_of(head: bytes) -> Format | None:
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    return None


def clean(file: BinaryIO, filename: str, settings: Settings, target: IO[bytes]) -> Picture:
    """Writes the picture in ``file`` to ``target`` as a PNG of nothing but pixels.

    Raises:
        Refused: it is no picture we take; the code says why. ``target`` is then worthless.
    """
    size_bytes = file.seek(0, io.SEEK_END)
    _require_size(size_bytes, filename, settings)
    with _decoders:
        image = _upright(_open(file, filename, settings), filename)
        image.save(target, format="PNG", compress_level=1)  # 6 takes four times as long for 5 %
    return Picture(image.width, image.height, size_bytes)


def sha256_of(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    file.seek(0)
    while chunk := file.read(MIB):
        digest.update(chunk)
    return digest.hexdigest()


def thumbnail(read: Callable[[], bytes], size: int) -> bytes:
    """A PNG whose longer side has at most ``size`` pixels, from one that ``clean`` made.

    ``read`` is called when its turn has come, so that those who wait hold nothing in memory.
    """
    with _decoders:
        image: Image = PngImageFile(io.BytesIO(read()))
        image.thumbnail((size, size), Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, format="PNG")
    return out.getvalue()


def refuse_unknown(head: bytes, filename: str) -> Refused:
    """The refusal of a file that is none of our formats: named, where it is a known other one."""
    for offset, magic, name in _OTHERS:
        if head[offset : offset + len(magic)] == magic:
            return Refused(
                "unsupported_format",
                f"{filename} is a {name} file. Convert it to PNG, JPEG or WebP.",
            )
    return Refused(
        "not_an_image", f"{filename} is not a picture: its content is not PNG, JPEG or WebP."
    )


def _require_size(size_bytes: int, filename: str, settings: Settings) -> None:
    if size_bytes > settings.max_image_bytes:
        raise Refused(
            "too_large",
            f"{filename} has {size_bytes / MIB:.1f} MiB; a picture may have "
            f"{settings.max_image_bytes / MIB:g} MiB.",
        )


def _require_few_scans(file: BinaryIO, filename: str) -> None:
    """Each scan of a progressive JPEG passes over all pixels, and takes 14 bytes to ask for."""
    file.seek(0)
    scans = 0
    for count, marker in enumerate(_segments(file.read())):
        scans += marker == _JPEG_SCAN
        if scans > MAX_SCANS or count > MAX_SEGMENTS:
            raise Refused(
                "too_many_scans",
                f"{filename} has more than {MAX_SCANS} scans or {MAX_SEGMENTS:,} parts: save it as "
                "an ordinary JPEG.",
            )


def _segments(jpeg: bytes) -> Iterator[bytes]:
    """The marker of each part of a JPEG up to its end, as a decoder meets them."""
    at = 0
    while (found := _JPEG_SEGMENT.search(jpeg, at)) and found[1] != _JPEG_END:
        yield found[1]
        at = found.end() + int.from_bytes(jpeg[found.end() : found.end() + 2], "big")


def _open(file: BinaryIO, filename: str, settings: Settings) -> ImageFile:
    """The header, checked. No pixel has been unpacked when this returns."""
    file.seek(0)
    head = file.read(HEAD_BYTES)
    kind = format_of(head)
    if kind is None:
        raise refuse_unknown(head, filename)
    _require_extension(kind, filename)
    _require_plain(head, kind, filename, settings)
    if kind == "JPEG":
        _require_few_scans(file, filename)
    file.seek(0)
    try:
        image = _READERS[kind](file)
    except (*_BROKEN, *_BROKEN_TOO) as error:
        raise _truncated(filename) from error
    _require_dimensions(image.width, image.height, filename, settings)
    if getattr(image, "is_animated", False):
        raise _animated(filename)
    if image.mode == "CMYK":
        raise Refused("cmyk", f"{filename} is a CMYK picture, made for print: save it as RGB.")
    return image


_READERS: dict[Format, type[ImageFile]] = {
    # The readers themselves: Image.open has a cap of its own, global, below what we take
    "PNG": PngImageFile,
    "JPEG": JpegImageFile,
    "WebP": WebPImageFile,
}


def _require_extension(kind: Format, filename: str) -> None:
    extension = PurePosixPath(filename).suffix.lower()
    if extension and extension not in EXTENSIONS[kind]:
        right = PurePosixPath(filename).with_suffix(EXTENSIONS[kind][0]).name
        raise Refused("wrong_extension", f"{filename} holds a {kind} picture: name it {right}.")


def _require_plain(head: bytes, kind: Format, filename: str, settings: Settings) -> None:
    """What only the raw header tells: the reader would hide it, or unpack before it said so."""
    if kind == "PNG" and len(head) > 24 and head[24] == 16:
        raise Refused("sixteen_bit", f"{filename} has 16 bits a channel: save it with 8.")
    if kind == "WebP" and head[12:16] == b"VP8X" and len(head) >= 30:
        if head[20] & 0x02:
            raise _animated(filename)
        width = int.from_bytes(head[24:27], "little") + 1
        height = int.from_bytes(head[27:30], "little") + 1
        _require_dimensions(width, height, filename, settings)


def _require_dimensions(width: int, height: int, filename: str, settings: Settings) -> None:
    if width * height > settings.max_image_pixels:
        raise Refused(
            "too_many_pixels",
            f"{filename} has {width} x {height} pixels; {settings.max_image_pixels:,} in all are "
            "the most. Send it smaller.",
        )
    if max(width, height) > settings.max_image_side:
        raise Refused(
            "side_too_long",
            f"{filename} has {width} x {height} pixels; {settings.max_image_side:,} are the most "
            "for a side.",
        )


def _upright(image: ImageFile, filename: str) -> Image:
    """The pixels, turned as the camera said, without anything that came along."""
    try:
        image.load()
        turned = ImageOps.exif_transpose(image)
        pixels = turned.convert("RGBA" if turned.has_transparency_data else "RGB")
    except (*_BROKEN, *_BROKEN_TOO) as error:
        raise _truncated(filename) from error
    pixels.info = {}
    return pixels


def _truncated(filename: str) -> Refused:
    return Refused("truncated", f"{filename} is damaged or incomplete: its pixels cannot be read.")


def _animated(filename: str) -> Refused:
    return Refused("animated", f"{filename} is an animation: send the frame you mean.")
