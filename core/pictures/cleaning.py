"""Pictures as people send them, turned into pixels that can be trusted.

PNG, JPEG and WebP by content, whatever the name says. The header is read before the pixels: what
is too large is refused without being unpacked. What comes out is upright, 8 bit RGB or RGBA, and
carries nothing but its pixels.

Whoever handles strangers' files calls this through ``decoder_pool``.
"""

import io
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, BinaryIO, Literal, Protocol

from PIL import ExifTags, ImageOps
from PIL.Image import Image, Resampling
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from core.pictures.refusal import Refused

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
_BROKEN_TOO = (struct.error, OverflowError)
MAX_SCANS = 100
"""Progressive JPEGs have about ten."""
MAX_SEGMENTS = 5_000
"""A picture at the byte cap that is all metadata has a thousand."""
_JPEG_SEGMENT = re.compile(rb"\xff([\xc0-\xcf\xd9-\xfe])")
"""Markers with a length behind them, and the end; among pixels none of them can stand."""
_TELLING_CHUNKS = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
_JPEG_SCAN, _JPEG_END = b"\xda", b"\xd9"
_TURNS, _LYING = range(2, 9), range(5, 9)
"""Orientations of a camera: those that are not upright, and of them those that exchange sides."""
_MIB = 1024**2


class Limits(Protocol):
    """Of one picture: bytes as sent, pixels in all and of a side. ``Settings`` has them."""

    @property
    def max_image_bytes(self) -> int: ...
    @property
    def max_image_pixels(self) -> int: ...
    @property
    def max_image_side(self) -> int: ...


@dataclass(frozen=True)
class Picture:
    """What a cleaned picture is: its sides upright, and its ``bytes`` as sent. ``turned``: the
    camera had said so."""

    width: int
    height: int
    bytes: int
    turned: bool


def format_of(head: bytes) -> Format | None:
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    return None


def clean(file: BinaryIO, filename: str, limits: Limits, target: IO[bytes]) -> Picture:
    """Writes the picture in ``file`` to ``target`` as a PNG of nothing but pixels.

    Raises:
        Refused: it is no picture we take; the code says why. ``target`` is then worthless.
    """
    size_bytes = file.seek(0, io.SEEK_END)
    require_size(size_bytes, filename, limits)
    try:
        image = _open(file, filename, limits)
        with _readable(file, filename):
            image.load()
            turned = _orientation(image) in _TURNS
            pixels = _upright(image)
        save(pixels, target)
    except MemoryError as error:
        raise too_costly(filename, "takes more memory than a picture may") from error
    return Picture(pixels.width, pixels.height, size_bytes, turned)


def examine(file: BinaryIO, filename: str, limits: Limits) -> Picture:
    """What ``clean`` would make of it, told by the header alone: no pixel is unpacked.

    Raises:
        Refused: it is no picture we take. Damage among the pixels is not seen.
    """
    size_bytes = file.seek(0, io.SEEK_END)
    image = _open(file, filename, limits)
    with _readable(file, filename):
        if isinstance(image, PngImageFile) and not _may_turn_late(file):
            image.info.setdefault("exif", b"")  # or the reader would unpack all to look for it
        orientation = _orientation(image)
    sides = (image.width, image.height)
    width, height = reversed(sides) if orientation in _LYING else sides
    return Picture(width, height, size_bytes, orientation in _TURNS)


def decode(content: bytes, filename: str) -> Image:
    """The pixels that ``clean`` writes, of bytes that were examined before.

    Raises:
        Refused: they are damaged.
    """
    kind = format_of(content)
    if kind is None:
        raise refuse_unknown(content, filename)
    file = io.BytesIO(content)
    with _readable(file, filename):
        image = _READERS[kind](file)
        image.load()
        return _upright(image)


def save(image: Image, target: IO[bytes]) -> None:
    image.save(target, format="PNG", compress_level=1)  # 6 takes four times as long for 5 %


def thumbnail(file: BinaryIO, side: int, target: IO[bytes]) -> None:
    """Writes a PNG whose longer side has at most ``side`` pixels, from one that ``clean`` made."""
    file.seek(0)
    image: Image = PngImageFile(file)
    image.thumbnail((side, side), Resampling.LANCZOS)
    image.save(target, format="PNG")


def too_costly(filename: str, what: str) -> Refused:
    """The refusal of a file that ``what`` happened to while it was unpacked."""
    return Refused(
        "too_costly",
        f"{filename} {what} while it is unpacked: save it anew as an ordinary PNG or JPEG, or "
        "smaller.",
    )


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


def require_size(size_bytes: int, filename: str, limits: Limits) -> None:
    """Raises Refused above the cap."""
    if size_bytes > limits.max_image_bytes:
        raise Refused(
            "too_large",
            f"{filename} has {size_bytes / _MIB:.1f} MiB; a picture may have "
            f"{limits.max_image_bytes / _MIB:g} MiB.",
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


def _open(file: BinaryIO, filename: str, limits: Limits) -> ImageFile:
    """The header, checked. No pixel has been unpacked when this returns."""
    file.seek(0)
    head = file.read(HEAD_BYTES)
    kind = format_of(head)
    if kind is None:
        raise refuse_unknown(head, filename)
    _require_extension(kind, filename)
    _require_plain(head, kind, filename, limits)
    if kind == "JPEG":
        _require_few_scans(file, filename)
    file.seek(0)
    with _readable(file, filename):
        image = _READERS[kind](file)
    _require_dimensions(image.width, image.height, filename, limits)
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


def _require_plain(head: bytes, kind: Format, filename: str, limits: Limits) -> None:
    """What only the raw header tells: the reader would hide it, or unpack before it said so."""
    if kind == "PNG" and len(head) > 24 and head[24] == 16:
        raise Refused("sixteen_bit", f"{filename} has 16 bits a channel: save it with 8.")
    if kind == "WebP" and head[12:16] == b"VP8X" and len(head) >= 30:
        if head[20] & 0x02:
            raise _animated(filename)
        width = int.from_bytes(head[24:27], "little") + 1
        height = int.from_bytes(head[27:30], "little") + 1
        _require_dimensions(width, height, filename, limits)


def _require_dimensions(width: int, height: int, filename: str, limits: Limits) -> None:
    if width * height > limits.max_image_pixels:
        raise Refused(
            "too_many_pixels",
            f"{filename} has {width} x {height} pixels; {limits.max_image_pixels:,} in all are "
            "the most. Send it smaller.",
        )
    if max(width, height) > limits.max_image_side:
        raise Refused(
            "side_too_long",
            f"{filename} has {width} x {height} pixels; {limits.max_image_side:,} are the most "
            "for a side.",
        )


def _may_turn_late(file: BinaryIO) -> bool:
    """Whether a PNG has a chunk behind its pixels that could say how it lies."""
    file.seek(8)
    has_begun = False
    while len(head := file.read(8)) == 8:
        name = head[4:]
        has_begun |= name == b"IDAT"
        if has_begun and name in _TELLING_CHUNKS:
            return True
        file.seek(int.from_bytes(head[:4]) + 4, io.SEEK_CUR)
    return False


def _orientation(image: ImageFile) -> int:
    return int(image.getexif().get(ExifTags.Base.Orientation, 1))


def _upright(image: ImageFile) -> Image:
    """The pixels, turned as the camera said, without anything that came along."""
    turned = ImageOps.exif_transpose(image)
    pixels = turned.convert("RGBA" if turned.has_transparency_data else "RGB")
    pixels.info = {}
    return pixels


@contextmanager
def _readable(file: BinaryIO, filename: str) -> Iterator[None]:
    """Turns what the library raises on a broken file into a refusal."""
    try:
        yield
    except (*_BROKEN, *_BROKEN_TOO) as error:
        if _ends_early(file) or "truncated" in str(error):
            detail = f"{filename} is incomplete: it ends before its pixels do. Send it again."
            raise Refused("truncated", detail) from error
        detail = f"{filename} is damaged: its pixels cannot be read. Open it and save it anew."
        raise Refused("corrupt", detail) from error


def _ends_early(file: BinaryIO) -> bool:
    """Whether the end that the format itself marks or announces is not there."""
    file.seek(0)
    content = file.read()
    match format_of(content):
        case "PNG":
            return b"IEND" not in content
        case "JPEG":
            return content.rfind(b"\xff\xd9") <= max(content.rfind(b"\xff\xda"), 0)
        case _:
            return int.from_bytes(content[4:8], "little") + 8 > len(content)


def _animated(filename: str) -> Refused:
    return Refused("animated", f"{filename} is an animation: send the frame you mean.")
