"""A picture that its owner keeps: the same pixels as uploaded, and only as it was imported."""

import io
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops

from core.config import Settings
from core.diffusion.picture import open_picture
from core.errors import PictureChanged, PictureGone, PictureUnreadable
from core.pictures import cleaning
from core.pictures.reference import Reference
from core.training.data import Source
from tests.support import uploads


def refer(path: Path, content: bytes, offset: int = 0) -> Reference:
    path.write_bytes(b"x" * offset + content + b"x" * offset)
    return Reference(path, "cats/1.png", offset, len(content), uploads.sha256(content))


def transparent() -> bytes:
    out = io.BytesIO()
    image = Image.new("RGBA", (40, 30), (200, 30, 30, 255))
    image.paste((0, 0, 255, 80), (0, 0, 20, 30))
    image.save(out, "PNG")
    return out.getvalue()


KINDS = {
    "sideways": uploads.sideways(),
    "transparent": transparent(),
    "palette": uploads.picture("PNG", mode="P", color=3, transparency=3),
    "grey": uploads.picture("PNG", mode="L", color=77),
    "bits": uploads.picture("PNG", mode="1", color=1),
    "webp": uploads.picture("WEBP", mode="RGBA", color=(9, 8, 7, 100)),
}


@pytest.mark.parametrize("offset", [0, 512])
@pytest.mark.parametrize("kind", KINDS)
def test_training_sees_the_pixels_of_the_same_file_uploaded(
    kind: str, offset: int, settings: Settings, tmp_path: Path
) -> None:
    content, uploaded = KINDS[kind], tmp_path / "uploaded.png"
    with uploaded.open("wb") as target:
        cleaned = cleaning.clean(io.BytesIO(content), "x", settings, target)
    imported = Source(refer(tmp_path / "file", content, offset)).open()
    assert ImageChops.difference(imported, open_picture(uploaded)).getbbox() is None
    assert imported.mode == "RGB"
    assert cleaning.examine(io.BytesIO(content), "x", settings) == cleaned
    assert imported.size == (cleaned.width, cleaned.height)


def change(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def become_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def become_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def lead_elsewhere(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


@pytest.mark.parametrize(
    ("harm", "error"),
    [
        (change, PictureChanged),
        (grow, PictureChanged),
        (cut, PictureChanged),
        (lead_elsewhere, PictureChanged),
        (Path.unlink, PictureGone),
        (become_a_pipe, PictureGone),
        (become_a_folder, PictureGone),
    ],
)
def test_what_is_no_longer_as_it_was_is_named(harm: Any, error: Any, tmp_path: Path) -> None:
    reference = refer(tmp_path / "file", uploads.picture())
    harm(reference.path)
    held = len(os.listdir("/proc/self/fd"))
    with pytest.raises(error, match=r"cats/1\.png") as refused:
        reference.open()
    assert len(os.listdir("/proc/self/fd")) == held
    assert str(tmp_path) not in refused.value.detail


def test_damage_that_was_there_at_the_import_is_named_too(tmp_path: Path) -> None:
    whole = uploads.picture("JPEG", size=(300, 200))
    reference = refer(tmp_path / "file", whole[: len(whole) // 2])
    with pytest.raises(PictureUnreadable, match="--decode"):
        reference.open()
