"""Files that mean harm, drawn by a seed: real ones cut, flipped and garbled; bombs; tricks."""

import io
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from random import Random

from PIL import Image, PngImagePlugin

from tests.support import loras, uploads

SCRIPT = b"<html><script>alert(document.domain)</script></html>"


@dataclass(frozen=True)
class Hostile:
    """What it is sent as, and what it is for whoever reads a failure. A LoRA goes elsewhere."""

    kind: str
    filename: str
    content: bytes
    is_lora: bool = False


Make = Callable[[Random], Hostile]


def files(seed: int, count: int) -> Iterator[Hostile]:
    """Always the same of one seed: four of five are wounded real files, the rest bombs and
    tricks, each of which comes in turn."""
    draw = Random(seed)
    specials = [*_PIXEL_BOMBS, *_ZIP_BOMBS, *_TRICKS]
    for number in range(count):
        if number % 5 == 0:
            yield specials[number // 5 % len(specials)](draw)
        else:
            yield _wounded(draw)


# Wounds


def _wounded(draw: Random) -> Hostile:
    name, content = draw.choice(_real_files())
    wound = draw.choice(_WOUNDS)
    return Hostile(
        f"{wound.__name__} {name}", name, wound(draw, content), name.endswith(".safetensors")
    )


def cut(draw: Random, content: bytes) -> bytes:
    return content[: draw.randrange(len(content))]


def flipped(draw: Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(draw.choice((1, 2, 8, 64))):
        changed[_place(draw, content)] ^= 1 << draw.randrange(8)
    return bytes(changed)


def overwritten(draw: Random, content: bytes) -> bytes:
    at = _place(draw, content)
    junk = draw.choice((b"\0", b"\xff", draw.randbytes(1))) * draw.choice((1, 2, 4, 200))
    return content[:at] + junk + content[at + len(junk) :]


def repeated(draw: Random, content: bytes) -> bytes:
    start, end = sorted((draw.randrange(len(content)), draw.randrange(len(content))))
    return content[:end] + content[start:]


_WOUNDS = (cut, flipped, overwritten, repeated)


def _place(draw: Random, content: bytes) -> int:
    """Every second one in the header, where it hurts."""
    return draw.randrange(min(len(content), 300) if draw.random() < 0.5 else len(content))


@cache
def _real_files() -> list[tuple[str, bytes]]:
    noise = Image.frombytes("RGB", (48, 40), random.Random(0).randbytes(48 * 40 * 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    found = [
        ("noise.png", _saved(noise, "PNG")),
        ("palette.png", _saved(noise.convert("P"), "PNG", transparency=0)),
        ("alpha.png", _saved(noise.convert("RGBA"), "PNG")),
        ("animated.png", uploads.animation("PNG")),
        ("camera.jpg", _saved(noise, "JPEG", exif=exif)),
        ("progressive.jpg", _saved(noise, "JPEG", progressive=True)),
        ("grey.jpg", _saved(noise.convert("L"), "JPEG")),
        ("lossy.webp", _saved(noise, "WEBP")),
        ("lossless.webp", _saved(noise.convert("RGBA"), "WEBP", lossless=True)),
    ]
    members = {"a.png": found[0][1], "b/c.jpg": found[4][1], "a.txt": b"a dog", "d.webp": b"no"}
    table = b'{"file_name": "a.png", "text": "a dog"}\n'
    packed = uploads.zip_of(members | {"metadata.jsonl": table}, zipfile.ZIP_DEFLATED)
    modules = ("mid_block.attentions.0.transformer_blocks.0.attn1.to_q",)
    pairs = loras.unet_pairs(modules=modules, rank=1)
    lora = loras.file_of(loras.spelt(loras.kohya, pairs, alpha=1.0), {"ss_network_dim": "1"})
    archives = [("stored.zip", uploads.zip_of(members)), ("packed.zip", packed)]
    return [*found, *archives, *[("dog.safetensors", lora)] * 3]


def _saved(image: Image.Image, format: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


# Bombs


@cache
def _black(side: int) -> bytes:
    """As few bytes for as many pixels as there may be."""
    return uploads.picture(size=(side, side), mode="1", color=0)


def promised_png(draw: Random) -> Hostile:
    side = draw.choice((9_999, 16_384, 65_535, 2**31 - 1))
    return Hostile("a PNG that promises", "bomb.png", uploads.png_header(side, side))


def promised_webp(_: Random) -> Hostile:
    return Hostile("a WebP that promises", "bomb.webp", uploads.webp_header(16_384, 16_384))


def full_png(draw: Random) -> Hostile:
    """At the cap, and above it."""
    return Hostile("a PNG of pixels", "bomb.png", _black(draw.choice((9_000, 10_001))))


def scans(draw: Random) -> Hostile:
    jpeg = uploads.picture("JPEG", (1_000, 1_000), progressive=True)
    last = jpeg.rindex(b"\xff\xda")
    many = jpeg[:last] + jpeg[last:-2] * draw.choice((90, 5_000)) + b"\xff\xd9"
    return Hostile("a JPEG of scans", "bomb.jpg", many)


def text_chunks(_: Random) -> Hostile:
    told = PngImagePlugin.PngInfo()
    told.add_text("Comment", "x" * 900_000, zip=True)
    picture = uploads.picture(pnginfo=told)
    chunk = b"zTXtComment\0\0" + zlib.compress(b"\0" * 60_000_000)
    length, sum = struct.pack(">I", len(chunk) - 4), struct.pack(">I", zlib.crc32(chunk))
    return Hostile("a PNG of text", "bomb.png", picture[:33] + length + chunk + sum + picture[33:])


_PIXEL_BOMBS: list[Make] = [promised_png, promised_webp, full_png, scans, text_chunks]


def _zip(kind: str, content: bytes) -> Hostile:
    return Hostile(f"a zip of {kind}", "bomb.zip", content)


def ratio(_: Random) -> Hostile:
    zeros = {f"{number}.png": b"\0" * 20_000_000 for number in range(3)}
    return _zip("zeros", uploads.zip_of(zeros, zipfile.ZIP_DEFLATED))


def overlapping(_: Random) -> Hostile:
    single = uploads.zip_of({"a.png": b"\0" * 100_000}, zipfile.ZIP_DEFLATED)
    start, end = single.index(b"PK\x01\x02"), single.index(b"PK\x05\x06")
    tail = bytearray(single[end:])
    tail[8:10] = tail[10:12] = (500).to_bytes(2, "little")
    tail[12:16] = ((end - start) * 500).to_bytes(4, "little")
    return _zip("one member under 500 names", single[:start] + single[start:end] * 500 + tail)


def nested(_: Random) -> Hostile:
    content = uploads.picture()
    for depth in range(8):
        content = uploads.zip_of({f"{depth}.zip" if depth else "a.png": content})
    return _zip("zips", content)


def entries(_: Random) -> Hostile:
    return _zip("entries", uploads.zip_of({f"{number}.png": b"" for number in range(10_001)}))


def lying(draw: Random) -> Hostile:
    """Says that its members are small, or larger than any disk."""
    content = bytearray(uploads.zip_of({"a.png": b"\0" * 9_000_000}, zipfile.ZIP_DEFLATED))
    at = content.index(b"PK\x01\x02") + 24
    content[at : at + 4] = draw.choice((10, 0xFFFF_FFFE)).to_bytes(4, "little")
    return _zip("lies", bytes(content))


def bombs_inside(_: Random) -> Hostile:
    return _zip("bombs", uploads.zip_of({"a.png": _black(10_001), "b.png": uploads.picture()}))


_ZIP_BOMBS: list[Make] = [ratio, overlapping, nested, entries, lying, bombs_inside]


# Tricks

OUTSIDE = (
    *("../escaped.png", "../../../../../../tmp/escaped.png", "/escaped.png", "..\\escaped.png"),
    *("C:\\escaped.png", "//host/share/escaped.png", "a/../../escaped.png", "....//escaped.png"),
    *("%2e%2e%2fescaped.png", "escaped.png\0.txt", "\u202egnp.escaped", ".", "..", "~/escaped.png"),
    *("/proc/self/mem", "/dev/null", "x" * 5_000 + ".png", "CON", "$(touch escaped).png", "|id"),
)


def named(draw: Random) -> Hostile:
    return Hostile("a name", draw.choice(OUTSIDE), uploads.picture(color=draw.randrange(2**24)))


def named_inside(draw: Random) -> Hostile:
    members = {name: uploads.picture(color=draw.randrange(2**24)) for name in OUTSIDE}
    return _zip("names", uploads.zip_of(members))


def special_files(draw: Random) -> Hostile:
    """Links, pipes, devices and sockets."""
    mode = draw.choice((0o120777, 0o010666, 0o020666, 0o060666, 0o140666))
    return _zip("special files", uploads.zip_with_link("escaped.png", "/etc/passwd", mode=mode))


def locked(_: Random) -> Hostile:
    return _zip("secrets", uploads.encrypted(uploads.zip_of({"a.png": uploads.picture()})))


def picture_and_zip(draw: Random) -> Hostile:
    """Two files in one."""
    zipped = uploads.zip_of({"../escaped.png": uploads.picture()})
    both = uploads.picture(color=draw.randrange(2**24)) + zipped
    return Hostile("a PNG that is a zip", draw.choice(("a.png", "a.zip")), both)


def picture_and_page(draw: Random) -> Hostile:
    comment = uploads.picture("JPEG", color=draw.randrange(2**24), comment=SCRIPT) + SCRIPT
    return Hostile("a JPEG that is a page", draw.choice(("a.jpg", "a.html", "a.svg")), comment)


def page(draw: Random) -> Hostile:
    start = draw.choice((b"", b"GIF89a", b"%PDF-1.4\n", b"BM", b"II*\0", b"<svg onload=x>"))
    return Hostile("a page", draw.choice(("a.png", "a.html", "a.svg")), start + SCRIPT)


def claimed_header(draw: Random) -> Hostile:
    """A LoRA whose header claims what no file has."""
    length = draw.choice((0, 2**63, 2**64 - 1, 8 * 1024**2 + 1))
    header = draw.choice((b"{}", b"[" * 50_000, b'{"a":' * 50_000, b'{"__metadata__": 1}'))
    content = loras.with_header(header, b"", draw.choice((length, None)))
    return Hostile("a LoRA that claims", "a.safetensors", content, is_lora=True)


def pickled(draw: Random) -> Hostile:
    program = b"cos\nsystem\n(S'touch escaped'\ntR."
    name = draw.choice(("a.safetensors", "a.pt", "a.ckpt", "../a.bin"))
    content = draw.choice((program, uploads.zip_of({"archive/data.pkl": program})))
    return Hostile("a pickle", name, content, is_lora=True)


_TRICKS: list[Make] = [
    *(named, named_inside, special_files, locked, picture_and_zip, picture_and_page, page),
    *(claimed_header, pickled, named, claimed_header),
]
