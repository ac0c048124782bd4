"""Zips of which any part can be read, and none lies anywhere."""

import io
import random
import zipfile
from pathlib import Path

import pytest

from api import bundle
from api.bundle import Bundle
from core.artifacts.service import StoredFile
from core.artifacts.store import CHUNK_BYTES, Store
from core.config import Settings
from tests.support import uploads

CONTENTS = {
    "unet/b.safetensors": random.Random(0).randbytes(CHUNK_BYTES + 5),
    "unet/größe.json": b"{}",
    "unet/empty": b"",
    "a": b"x" * 99,
}


@pytest.fixture
def store(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(bundle, "_checksums", {})
    return Store.of(settings)


@pytest.fixture
def files(store: Store) -> list[StoredFile]:
    for number, content in enumerate(CONTENTS.values()):
        store.put_bytes(f"jobs/{number}", content)
    return [
        StoredFile(path, len(content), uploads.sha256(content), f"jobs/{number}")
        for number, (path, content) in enumerate(CONTENTS.items())
    ]


def written() -> bytes:
    """The same by zipfile."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(CONTENTS):
            entry = zipfile.ZipInfo(path)
            entry.create_system, entry.external_attr = 3, 0o100644 << 16
            archive.writestr(entry, CONTENTS[path])
    return target.getvalue()


def read(store: Store, files: list[StoredFile], start: int, end: int) -> bytes:
    return b"".join(Bundle(store, files).read(start, end))


def test_it_is_what_zipfile_writes(store: Store, files: list[StoredFile]) -> None:
    whole = written()
    assert Bundle(store, files).size == len(whole)
    assert read(store, files, 0, len(whole)) == whole


def test_any_part_of_it(
    store: Store, files: list[StoredFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, draw = written(), random.Random(1)
    edges = [*range(300), *range(len(whole) - 600, len(whole) + 1), CHUNK_BYTES + 300]
    for start, end in (sorted(draw.sample(edges, 2)) for _ in range(60)):
        monkeypatch.setattr(bundle, "_checksums", {})
        assert read(store, files, start, end) == whole[start:end]


def test_a_part_inside_a_file_needs_no_other(store: Store, files: list[StoredFile]) -> None:
    at = written().index(CONTENTS["unet/b.safetensors"])
    parts = list(Bundle(store, files).read(at + 7, at + 20))
    assert parts == [CONTENTS["unet/b.safetensors"][7:20]]


def test_large_files_have_large_headers(store: Store, settings: Settings) -> None:
    """Of zeros that take no room on the disk."""
    store.put_bytes("jobs/large", b"")
    with Path(settings.blobs_path, "jobs/large").open("r+b") as file:
        file.truncate(2**31 + 5)
    store.put_bytes("jobs/small", b"small")
    files = [
        StoredFile("a", 2**31 + 5, "0" * 64, "jobs/large"),
        StoredFile("b", 5, uploads.sha256(b"small"), "jobs/small"),
    ]
    size = Bundle(store, files).size
    with zipfile.ZipFile(io.BytesIO(read(store, files, size - 1000, size))) as archive:
        large, small = archive.infolist()
        assert archive.read(small) == b"small"
    assert (large.file_size, large.extract_version, small.file_size) == (2**31 + 5, 45, 5)
    assert large.header_offset == -(size - 1000)  # seen from where the reading began
    head = read(store, files, 0, 100)
    assert int.from_bytes(head[14:18], "little") == large.CRC
    assert head[31:51] == b"\1\0\x10\0" + 2 * (2**31 + 5).to_bytes(8, "little")
