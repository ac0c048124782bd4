"""Folders as researchers have them: by content, and what of them cannot be used."""

import json
import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from core.errors import NoUsableFile, Unprocessable
from core.pictures.reference import Reference
from tests.core.datasets.importing.conftest import House, left_out
from tests.support import pictures, shards, uploads

RED, BLUE = uploads.picture(), uploads.picture("JPEG", color=(0, 0, 255))


def shard(path: Path, **members: bytes) -> None:
    """``a_b`` is the member `a.b`."""
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            shards.add(tar, name.replace("_", "."), content)


# Folders of pictures


def test_captions_without_a_picture_or_with_two(small_house: House) -> None:
    pictures.write(small_house.data, 2)
    (small_house.data / "0.jpg").write_bytes(BLUE)
    (small_house.data / "1.json").write_text('{"beside": "it"}')
    for name in ("0", "1", "2"):
        (small_house.data / f"{name}.txt").write_text(f"the {name}")
    report = small_house.take()
    assert small_house.captions(report) == {"1.png": "the 1"}
    assert left_out(report) == {
        **{
            "caption_ambiguous": 1,
            "caption_without_image": 1,
            "caption_missing": 2,
            "not_an_image": 1,
        }
    }


def test_names_that_are_no_text_and_things_that_are_no_files(small_house: House) -> None:
    pictures.write(small_house.data, 1)
    (small_house.data / os.fsdecode(b"\xff.png")).write_bytes(RED)
    os.mkfifo(small_house.data / "pipe.png")
    (small_house.data / ".DS_Store").write_bytes(b"x")
    report = small_house.take()
    assert report.images == 1
    assert left_out(report) == {"bad_name": 1, "file_unreadable": 1}


def test_a_caption_that_is_too_long_takes_its_picture_along(small_house: House) -> None:
    pictures.write(small_house.data, 2)
    (small_house.data / "0.txt").write_text("x" * 4001)
    (small_house.data / "1.txt").write_text("short")
    report = small_house.take()
    assert (report.images, left_out(report)) == (1, {"caption_too_long": 1})


# Tables

ROWS = [
    {"file_name": "sub/0.png", "text": " the first ", "width": 3},
    {"file_name": "sub/1.png", "text": "the second"},
    {"file_name": "../out.png", "text": "x"},
    {"file_name": "/etc/passwd", "text": "x"},
    {"file_name": "sub/2.png", "text": "x"},
    {"file_name": "sub/0.png", "text": None},
]
TOLD = {"unsafe_path": 2, "file_missing": 1, "bad_metadata": 1}


def write_jsonl(folder: Path) -> None:
    lines = map(json.dumps, ROWS)
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")


def write_parquet(folder: Path) -> None:
    table = pyarrow.Table.from_pylist(ROWS)
    parquet.write_table(table, folder / "metadata.parquet", row_group_size=2)


@pytest.mark.parametrize("write", [write_jsonl, write_parquet])
def test_a_table_names_pictures_and_nothing_outside(write: Any, small_house: House) -> None:
    pictures.write(small_house.data / "sub", 2)
    (small_house.data / "not-named.png").write_bytes(RED)
    write(small_house.data)
    report = small_house.take()
    assert report.layout == write.__name__.replace("write_", "metadata.")
    assert small_house.captions(report) == {"sub/0.png": "the first", "sub/1.png": "the second"}
    assert left_out(report) == TOLD


def test_a_table_that_is_none(small_house: House) -> None:
    pictures.write(small_house.data, 1)
    jsonl, table = small_house.data / "metadata.jsonl", small_house.data / "metadata.parquet"
    table.write_bytes(b"PAR1 and no more")
    with pytest.raises(NoUsableFile, match="damaged or no parquet"):
        small_house.take()
    parquet.write_table(pyarrow.table({"file_name": ["0.png"], "caption": ["x"]}), table)
    with pytest.raises(NoUsableFile, match="no column `text`"):
        small_house.take()
    jsonl.write_text('{"file_name": "0.png", "text": "x"}\n' + "x" * 2**20)
    with pytest.raises(Unprocessable, match=r"two tables, metadata\.jsonl and metadata\.parquet"):
        small_house.take()
    table.unlink()
    report = small_house.take()
    assert (report.images, left_out(report)) == (1, {"too_large": 1})


# Shards


def test_shards_pair_by_name_and_are_read_where_a_member_lies(house: House) -> None:
    told = json.dumps({"caption": "the second", "url": "x"}).encode()
    shard(house.data / "a.tar", x_txt=b"the first", x_png=RED, x_cls=b"3")
    shard(house.data / "b.tar", y_json=told, y_jpg=BLUE, z_json=b'{"text": "the third"}',
          z_webp=uploads.picture("WEBP"))  # fmt: skip
    report = house.take()
    assert (report.layout, report.left_out) == ("webdataset", [])
    assert house.captions(report) == {
        "a.tar/x.png": "the first",
        "b.tar/y.jpg": "the second",
        "b.tar/z.webp": "the third",
    }
    for image, content in zip(house.images(report), (RED, BLUE), strict=False):
        assert image.path is not None
        assert image.offset
        lies = house.data / image.path
        reference = Reference(lies, "x", image.offset, image.bytes, image.sha256)
        assert reference.read() == content
    assert house.take(house.data / "b.tar").images == 2


def test_a_shards_links_and_odd_samples_are_told_of(small_house: House) -> None:
    path = small_house.data / "a.tar"
    shard(path, a_png=RED, a_jpg=BLUE, a_txt=b"a", b_txt=b"b", c_png=RED, c_json=b"[1]")
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("d.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        device = tarfile.TarInfo("e.png")
        device.type = tarfile.CHRTYPE
        tar.addfile(device)
    report = small_house.take()
    assert small_house.captions(report) == {"a.tar/a.png": "a"}
    assert left_out(report) == {
        **{"second_picture": 1, "caption_without_image": 1, "bad_metadata": 1, "link": 2}
    }


def test_a_shard_that_breaks_off_gives_what_came_before(small_house: House) -> None:
    path = small_house.data / "a.tar"
    shard(path, a_png=RED, a_txt=b"a", b_txt=b"b", b_png=uploads.picture(size=(500, 500)))
    whole = path.read_bytes()
    path.write_bytes(whole[:2048] + whole[2048:2600])
    (small_house.data / "b.tar").write_bytes(b"\x1f\x8b and so on")
    (small_house.data / "c.tar").write_bytes(b"no tar at all" * 100)
    report = small_house.take()
    assert small_house.captions(report) == {"a.tar/a.png": "a"}
    assert left_out(report) == {"truncated": 2, "unsupported_compression": 1}


def test_a_file_that_is_no_shard(small_house: House) -> None:
    (small_house.data / "a.zip").write_bytes(b"PK\3\4")
    with pytest.raises(Unprocessable, match=r"a\.zip is no \.tar"):
        small_house.take(small_house.data / "a.zip")


def test_nothing_of_a_shard_is_ever_unpickled(small_house: House) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(small_house.data / "trapped"),)

    shard(small_house.data / "a.tar", a_png=RED, a_txt=b"a", a_pkl=pickle.dumps(Trap()),
          a_pth=pickle.dumps(Trap()), b_pyd=pickle.dumps(Trap()))  # fmt: skip
    assert small_house.take().images == 1
    assert not (small_house.data / "trapped").exists()
