"""What is taken as a picture, what it becomes, and why others are refused."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngImageFile

from core.config import Settings
from core.pictures import cleaning
from core.pictures.refusal import Refused
from tests.support import uploads


def clean(content: bytes, filename: str, settings: Settings) -> Image.Image:
    target = io.BytesIO()
    cleaning.clean(io.BytesIO(content), filename, settings, target)
    return Image.open(target)


@pytest.fixture
def small_caps(tmp_path: Path) -> Settings:
    return Settings(
        home=tmp_path, max_image_pixels=10_000, max_image_side=200, max_image_bytes=50_000
    )


@pytest.mark.parametrize(
    ("format", "name"),
    [("PNG", "dog.png"), ("JPEG", "dog.jpg"), ("JPEG", "DOG.JPEG"), ("WEBP", "dog.webp")],
)
def test_three_formats_become_png(format: str, name: str, settings: Settings) -> None:
    image = clean(uploads.picture(format), name, settings)
    assert (image.format, image.size, image.mode) == ("PNG", (64, 48), "RGB")


def test_a_name_without_extension_is_no_claim(settings: Settings) -> None:
    assert clean(uploads.picture(), "dog", settings).size == (64, 48)


@pytest.mark.parametrize(
    ("mode", "color", "becomes"),
    [
        ("RGBA", (9, 8, 7, 100), "RGBA"),
        ("LA", (90, 10), "RGBA"),
        ("L", 90, "RGB"),
        ("1", 1, "RGB"),
        ("P", 3, "RGB"),
    ],
)
def test_alpha_stays_and_all_else_becomes_rgb(
    mode: str, color: object, becomes: str, settings: Settings
) -> None:
    assert clean(uploads.picture(mode=mode, color=color), "a.png", settings).mode == becomes


def test_a_transparent_palette_keeps_its_holes(settings: Settings) -> None:
    content = uploads.picture(mode="P", color=0, transparency=0)
    image = clean(content, "a.png", settings)
    assert image.getpixel((0, 0))[3] == 0  # type: ignore[index]


def test_it_is_turned_upright_and_tells_nothing_else(settings: Settings) -> None:
    target = io.BytesIO()
    picture = cleaning.clean(io.BytesIO(uploads.sideways()), "a.jpg", settings, target)
    assert (picture.width, picture.height, picture.turned) == (32, 64, True)
    image = Image.open(target)
    red, _, blue = image.getpixel((16, 8))  # type: ignore[misc]
    assert red > 200 > 60 > blue
    assert b"Secret" not in target.getvalue()
    assert set(uploads.chunks_of(target.getvalue())) == {b"IHDR", b"IDAT", b"IEND"}


def with_late_orientation(content: bytes) -> bytes:
    """A PNG that says behind its pixels that it lies on its side."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    body = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    end = content.rindex(b"IEND") - 4
    return content[:end] + chunk + content[end:]


def test_the_header_tells_what_the_pixels_will_be(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    upright = uploads.picture(size=(64, 32))
    sent = [upright, with_late_orientation(upright), uploads.sideways()]
    cleaned = [cleaning.clean(io.BytesIO(each), "a", settings, io.BytesIO()) for each in sent]
    examined = [cleaning.examine(io.BytesIO(each), "a", settings) for each in sent]
    assert examined == cleaned
    assert [each.turned for each in examined] == [False, True, True]
    monkeypatch.setattr(PngImageFile, "load", None)  # no pixel is unpacked
    assert cleaning.examine(io.BytesIO(upright), "a", settings) == cleaned[0]


def test_text_and_colour_profiles_are_dropped(settings: Settings) -> None:
    content = uploads.picture(icc_profile=b"profile of somebody", dpi=(300, 300))
    target = io.BytesIO()
    cleaning.clean(io.BytesIO(content), "a.png", settings, target)
    assert set(uploads.chunks_of(target.getvalue())) == {b"IHDR", b"IDAT", b"IEND"}


@pytest.mark.parametrize(
    ("content", "name", "code"),
    [
        (b"I am a dog.", "dog.jpg", "not_an_image"),
        (b"", "dog.png", "not_an_image"),
        (b"GIF89a" + b"\0" * 30, "dog.gif", "unsupported_format"),
        (b"\0\0\0\x18ftypheic" + b"\0" * 30, "dog.heic", "unsupported_format"),
        (uploads.picture("WEBP"), "dog.jpg", "wrong_extension"),
        (uploads.picture(), "dog.txt", "wrong_extension"),
        (uploads.picture("JPEG", mode="CMYK", color=(1, 2, 3, 4)), "dog.jpg", "cmyk"),
        (uploads.png_header(8, 8, depth=16), "dog.png", "sixteen_bit"),
        (uploads.picture(mode="I;16", color=4000), "dog.png", "sixteen_bit"),
        (uploads.animation("PNG"), "dog.png", "animated"),
        (uploads.animation("WEBP"), "dog.webp", "animated"),
        (uploads.picture("JPEG", (160, 60))[:-200], "dog.jpg", "truncated"),
        (uploads.picture()[:-30], "dog.png", "truncated"),
        (uploads.picture().replace(b"IDAT", b"IDAX"), "dog.png", "corrupt"),
        (uploads.garbled("PNG"), "dog.png", "corrupt"),
        (uploads.garbled("JPEG"), "dog.jpg", "corrupt"),
        (uploads.garbled("WEBP"), "dog.webp", "corrupt"),
        (uploads.picture("WEBP")[:-30], "dog.webp", "truncated"),
        (uploads.png_header(90, 90), "dog.png", "truncated"),
        (b"\x89PNG\r\n\x1a\n", "dog.png", "truncated"),
        (b"\xff\xd8\xff", "dog.jpg", "truncated"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "dog.webp", "truncated"),
        (uploads.png_header(20_000, 20_000), "dog.png", "too_many_pixels"),
        (uploads.webp_header(16_384, 16_384), "dog.webp", "too_many_pixels"),
        (uploads.webp_header(9, 9, flags=2), "dog.webp", "animated"),
        (uploads.png_header(300, 2), "dog.png", "side_too_long"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 60_000, "dog.png", "too_large"),
    ],
)
def test_refusals_have_a_code_and_a_sentence_with_the_name(
    content: bytes, name: str, code: str, small_caps: Settings
) -> None:
    with pytest.raises(Refused) as refused:
        clean(content, name, small_caps)
    flaw = refused.value.flaw
    assert flaw.code == code
    assert name in flaw.detail
    assert flaw.detail.endswith(".")


def test_pictures_near_the_cap_raise_no_alarm_of_the_library(settings: Settings) -> None:
    """Pillow's own cap lies at 89 million pixels, below ours, and is global."""
    content = uploads.picture(size=(9_500, 9_500), mode="1", color=0)
    picture = cleaning.clean(io.BytesIO(content), "wide.png", settings, io.BytesIO())
    assert (picture.width, picture.height) == (9_500, 9_500)


def test_a_thumbnail_keeps_the_shape_and_is_never_larger(settings: Settings) -> None:
    whole = io.BytesIO()
    cleaning.clean(io.BytesIO(uploads.picture(size=(200, 100))), "a.png", settings, whole)
    for side, size in ((50, (50, 25)), (999, (200, 100))):
        small = io.BytesIO()
        cleaning.thumbnail(whole, side, small)
        assert Image.open(small).size == size


def progressive(scans: int, **options: Any) -> bytes:
    """A progressive JPEG that goes over its pixels ``scans`` times more."""
    jpeg = uploads.picture("JPEG", progressive=True, **options)
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:last] + jpeg[last:-2] * (scans + 1) + b"\xff\xd9"


@pytest.mark.parametrize("options", [{}, {"restart_marker_blocks": 1}])
def test_a_jpeg_of_many_scans_is_refused_before_it_is_read(
    options: dict[str, Any], settings: Settings
) -> None:
    assert clean(progressive(80, **options), "a.jpg", settings).size == (64, 48)
    with pytest.raises(Refused) as refused:
        clean(progressive(200, **options), "a.jpg", settings)
    assert refused.value.flaw.code == "too_many_scans"


def test_a_jpeg_of_many_small_parts_is_refused_before_it_is_read(settings: Settings) -> None:
    with pytest.raises(Refused) as refused:
        clean(b"\xff\xd8" + b"\xff\xfe\0\2" * 10_000, "a.jpg", settings)
    assert refused.value.flaw.code == "too_many_scans"


def test_what_only_looks_like_scans_is_none(settings: Settings) -> None:
    """Cameras put small pictures before the pixels and films behind the end."""
    content = uploads.picture("JPEG", comment=b"\xff\xda" * 200) + b"\xff\xda" * 200
    assert clean(content, "a.jpg", settings).size == (64, 48)
