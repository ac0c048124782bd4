"""What an import makes, whole or not at all."""

import shutil
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update

from core.artifacts.store import Store
from core.datasets import intake, removal, service
from core.datasets.decoder_pool import DecoderPool
from core.datasets.importing import importer
from core.datasets.importing.staging import Staged
from core.datasets.intake import Upload
from core.datasets.removal import ABANDONED
from core.db.models import Dataset, Image, now
from core.errors import Conflict, DatasetFrozen, NotFound, NoUsableFile, Unprocessable
from core.owners import quotas
from core.owners import service as owners
from core.retention import Retention
from tests.core.datasets.importing.conftest import House, left_out
from tests.support import pictures, uploads


def write(folder: Path, count: int = 3) -> None:
    """Pictures with captions."""
    for path in pictures.write(folder, count):
        path.with_suffix(".txt").write_text(f"number {path.stem}")


def test_pictures_are_named_where_they_lie_and_frozen(house: House) -> None:
    write(house.data / "cats")
    told: list[tuple[int, int]] = []
    report = house.take(tell=lambda *counts: told.append(counts))
    assert (report.kind, report.layout, report.images) == ("captioned", "imagefolder", 3)
    assert (report.left_out, report.decoded, told) == ([], False, [(3, 0)])
    assert house.captions(report) == {f"cats/{n}.png": f"number {n}" for n in range(3)}
    first = house.images(report)[0]
    content = (house.data / "cats/0.png").read_bytes()
    assert (first.path, first.offset, first.store_key) == ("cats/0.png", 0, None)
    assert (first.sha256, first.bytes) == (uploads.sha256(content), len(content))
    assert (first.width, first.height) == (64, 64)
    with house.database.read() as session:
        dataset = service.get(session, "admin", report.dataset)
        assert (dataset.sha256, dataset.folder) == (report.sha256, str(house.data))
        with pytest.raises(DatasetFrozen, match="was imported"):
            service.get_changeable(session, "admin", report.dataset)


def test_the_hash_is_that_of_the_same_pictures_uploaded(house: House) -> None:
    write(house.data)
    report = house.take()
    with house.database.write() as session:
        uploaded = service.create(session, "admin", name="sent", kind="captioned")
    sent = [Upload(path.name, path.open("rb")) for path in house.data.iterdir()]
    store = Store.of(house.settings)
    with closing(DecoderPool(house.settings)) as decoders:
        intake.receive(
            house.database,
            store,
            decoders,
            house.settings,
            owner="admin",
            dataset_id=uploaded.id,
            uploads=sent,
        )
    for upload in sent:
        upload.content.close()
    with house.database.write() as session:
        assert service.freeze(session, uploaded) == report.sha256


def test_one_caption_makes_it_captioned_and_others_are_left_out(house: House) -> None:
    write(house.data)
    (house.data / "1.txt").unlink()
    report = house.take()
    assert (report.kind, report.images) == ("captioned", 2)
    (bare,) = report.left_out
    assert (bare.code, bare.files, bare.first) == (
        *("caption_missing", 1),
        ["1.png has no caption."],
    )
    assert house.take(kind="instance").images == 3
    (house.data / "0.txt").unlink()
    (house.data / "2.txt").unlink()
    assert house.take().kind == "instance"
    with pytest.raises(NoUsableFile, match=r"0\.png has no caption"):
        house.take(kind="captioned")


def test_the_same_bytes_are_taken_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importer, "AT_ONCE", 2)  # in one batch, and in two
    write(house.data)
    for name in ("0-again.png", "9.png"):
        shutil.copy(house.data / "0.png", house.data / name)
    report = house.take(kind="instance")
    assert (report.images, left_out(report)) == (3, {"already_there": 2})


def test_what_cannot_be_used_is_counted_and_the_first_told(small_house: House) -> None:
    write(small_house.data)
    for number in range(12):
        (small_house.data / f"moving-{number:02}.gif").write_bytes(b"GIF89a")
    (small_house.data / "print.jpg").write_bytes(
        uploads.picture("JPEG", mode="CMYK", color=(0, 0, 0, 0))
    )
    report = small_house.take()
    assert left_out(report) == {"unsupported_format": 12, "cmyk": 1}
    assert len(report.left_out[0].first) == 10
    assert report.left_out[0].first[0].startswith("moving-00.gif is a GIF file")


def test_damage_among_pixels_is_found_when_asked_for(small_house: House) -> None:
    write(small_house.data)
    whole = uploads.picture("JPEG", size=(300, 200))
    (small_house.data / "half.jpg").write_bytes(whole[: len(whole) // 2])
    assert small_house.take(kind="instance").images == 4
    report = small_house.take(kind="instance", decode=True)
    assert (report.images, report.decoded, left_out(report)) == (3, True, {"truncated": 1})


def test_nothing_usable_is_refused_and_leaves_nothing(house: House) -> None:
    with pytest.raises(NoUsableFile, match="it is empty"):
        house.take()
    (house.data / "notes.md").write_text("# nothing")
    with pytest.raises(NoUsableFile, match=r"none of 1 files can be used: notes\.md is not a"):
        house.take()
    assert house.datasets() == []


def test_only_below_a_root(small_house: House, tmp_path: Path) -> None:
    write(tmp_path / "elsewhere")
    with pytest.raises(Unprocessable, match="add its folder to STILLROOM_IMPORT_ROOTS"):
        small_house.take(tmp_path / "elsewhere")
    (small_house.data / "link").symlink_to(tmp_path / "elsewhere")
    for path in (small_house.data / "link", small_house.data / "../elsewhere"):
        with pytest.raises(Unprocessable, match=r"elsewhere is not below .*/data"):
            small_house.take(path)
    with pytest.raises(NotFound, match="nowhere is not there"):
        small_house.take(small_house.data / "nowhere")
    closed = small_house.settings.model_copy(update={"import_roots": []})
    with pytest.raises(Unprocessable, match="STILLROOM_IMPORT_ROOTS"):
        importer.import_folder(small_house.data, closed, lambda *_: None, name="x")


def test_links_may_lead_within_the_roots_and_not_out_of_them(
    small_house: House, tmp_path: Path
) -> None:
    write(small_house.data / "in", 1)
    write(tmp_path / "elsewhere", 2)
    (small_house.data / "in/a.png").symlink_to(tmp_path / "elsewhere/1.png")
    (small_house.data / "in/folder").symlink_to(tmp_path / "elsewhere")
    report = small_house.take(small_house.data / "in")
    assert report.images == 1
    assert left_out(report) == {"leads_outside": 1, "file_unreadable": 1}
    write(small_house.data / "other", 2)
    (small_house.data / "in/a.png").unlink()
    (small_house.data / "in/a.png").symlink_to(small_house.data / "other/1.png")
    assert small_house.take(small_house.data / "in", kind="instance").images == 2


def test_an_import_that_breaks_off_leaves_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importer, "AT_ONCE", 1)
    write(house.data)

    def interrupt(images: int, left_out: int) -> None:
        if images == 2:
            with house.database.read() as session:
                assert session.scalar(select(func.count()).select_from(Image)) == 2
                assert service.list_page(session, "admin") == ([], None)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        house.take(tell=interrupt)
    assert house.datasets() == []


def abandon(house: House, age: timedelta) -> Staged:
    staged = Staged(house.database, name="x", folder=house.data)
    row: dict[str, Any] = {"filename": "x", "width": 1, "height": 1, "bytes": 1, "offset": 0}
    staged.add([row | {"sha256": "0" * 64, "caption": None, "path": "x"}])
    with house.database.write() as session:
        session.execute(update(Dataset).values(created_at=now() - age))
    return staged


def test_what_a_killed_import_left_is_swept_after_a_day(house: House) -> None:
    abandon(house, ABANDONED - timedelta(minutes=5))
    retention = Retention(house.database, Store.of(house.settings), house.settings)
    retention.look()
    assert len(house.datasets()) == 1
    late = abandon(house, ABANDONED + timedelta(minutes=5))
    retention.look()
    assert house.datasets() == []
    with pytest.raises(Conflict, match="given up"):
        late.publish("admin", "captioned")


def test_nobody_loses_a_whole_dataset_to_the_sweep(house: House) -> None:
    write(house.data)
    report = house.take()
    with house.database.write() as session:
        session.execute(update(Dataset).values(created_at=now() - 2 * ABANDONED))
    removal.sweep(house.database)
    assert house.datasets() == [report.dataset]


def test_it_is_another_owners_when_they_have_a_key(house: House) -> None:
    write(house.data)
    with pytest.raises(NotFound, match="No key belongs to 'alice'"):
        house.take(owner="alice")
    with house.database.write() as session:
        owners.create(session, owner="alice", name="hers", scopes=["read"])
    report = house.take(owner="alice")
    with house.database.read() as session:
        assert service.get(session, "alice", report.dataset).name == "pets"
        with pytest.raises(NotFound):
            service.get(session, "admin", report.dataset)


def test_it_goes_and_the_files_stay_and_do_not_count(house: House) -> None:
    write(house.data)
    before = sorted(house.data.iterdir())
    report = house.take()
    with house.database.write() as session:
        assert quotas.stored_bytes(session, "admin") == 0
        removal.remove(session, "admin", report.dataset)
    Retention(house.database, Store.of(house.settings), house.settings).look()
    assert house.datasets() == []
    assert sorted(house.data.iterdir()) == before
