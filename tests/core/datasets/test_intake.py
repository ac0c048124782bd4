"""Whole uploads against a real database and a real store."""

import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import select

from core.artifacts import deletions
from core.artifacts.store import Store
from core.config import Settings
from core.datasets import inspection, intake, pixels, service
from core.datasets.decoder_pool import DecoderPool
from core.datasets.intake import Item, Upload
from core.db.engine import Database
from core.db.models import Deletion
from core.errors import DatasetEmpty, DatasetFrozen, NotFound, NoUsableFile
from tests.support import uploads

RED, BLUE = uploads.picture(), uploads.picture(color=(0, 0, 255))
GREEN = uploads.picture(color=(0, 255, 0))


class House:
    """One dataset and what an upload to it needs."""

    def __init__(self, database: Database, settings: Settings, decoders: DecoderPool) -> None:
        self.database = database
        self.decoders = decoders
        self.settings = settings
        self.store = Store.of(settings)
        with database.write() as session:
            self.dataset = service.create(session, "ann", name="dog", kind="instance")

    def send(self, *files: tuple[str, bytes], owner: str = "ann") -> list[Item]:
        with ExitStack() as opened:
            return intake.receive(
                self.database,
                self.store,
                self.decoders,
                self.settings,
                owner=owner,
                dataset_id=self.dataset.id,
                uploads=[
                    Upload(name, opened.enter_context(uploads.opened(content)))
                    for name, content in files
                ],
            )

    def captions(self) -> dict[str, str | None]:
        with self.database.read() as session:
            images = service.images_of(session, self.dataset)
        return {image.filename: image.caption for image in images}

    def blobs(self) -> int:
        return sum(path.is_file() for path in self.settings.blobs_path.rglob("*"))

    def freeze(self) -> str:
        with self.database.write() as session:
            return service.freeze(session, service.get(session, "ann", self.dataset.id))


@pytest.fixture
def house(any_database: Database, settings: Settings, decoders: DecoderPool) -> House:
    return House(any_database, settings, decoders)


def codes(item: Item) -> list[str]:
    return [flaw.code for flaw in item.flaws]


def test_good_and_bad_files_of_one_upload_each_get_their_answer(house: House) -> None:
    zipped = uploads.zip_of(
        {"dog.png": BLUE, "../x.png": RED, "inner.zip": uploads.zip_of({}), "dog.txt": b"a dog"}
    )
    items = house.send(("red.png", RED), ("dog.jpg", b"text"), ("a.zip", zipped))
    told = [(item.filename, item.kind, bool(item.id), codes(item)) for item in items]
    assert told == [
        ("red.png", "image", True, []),
        ("dog.jpg", "unknown", False, ["not_an_image"]),
        ("a.zip", "archive", False, []),
        ("a.zip/dog.png", "image", True, []),
        ("a.zip/../x.png", "unknown", False, ["unsafe_path"]),
        ("a.zip/inner.zip", "archive", False, ["nested_archive"]),
        ("a.zip/dog.txt", "caption", False, []),
    ]
    assert house.captions() == {"red.png": None, "a.zip/dog.png": "a dog"}
    assert house.blobs() == 2


def test_the_same_bytes_again_are_the_same_image(house: House) -> None:
    (first,) = house.send(("red.png", RED))
    again, twin = house.send(("other.png", RED), ("third.png", RED))
    assert first.id == again.id == twin.id
    assert codes(again) == codes(twin) == ["already_there"]
    assert house.blobs() == 1


def test_captions_reach_images_that_were_there_before(house: House) -> None:
    house.send(("red.png", RED), ("blue.png", BLUE))
    table = b'{"file_name": "blue.png", "text": "blue"}\n{"file_name": "no.png", "text": "x"}'
    text, metadata = house.send(("red.txt", b"red"), ("metadata.jsonl", table))
    assert house.captions() == {"red.png": "red", "blue.png": "blue"}
    assert (text.kind, codes(text)) == ("caption", [])
    assert (metadata.kind, codes(metadata)) == ("metadata", ["caption_without_image"])


def test_nothing_usable_says_why_of_each_file(house: House) -> None:
    with pytest.raises(NoUsableFile) as refused:
        house.send(("dog.jpg", b"text"), ("a.zip", uploads.zip_of({"../x": b"x"})))
    problems = [(each.pointer, each.code) for each in refused.value.errors]
    assert problems == [("/files/0", "not_an_image"), ("/files/1", "unsafe_path")]
    with pytest.raises(NoUsableFile):
        house.send()
    with pytest.raises(NoUsableFile):
        house.send(("a.zip", uploads.zip_of({})))
    assert house.blobs() == 0


@pytest.mark.parametrize("name", ["../dog.png", "/dog.png", "a\\..\\..\\dog.png"])
def test_a_name_that_leads_outside_is_refused(name: str, house: House, tmp_path: Path) -> None:
    with pytest.raises(NoUsableFile) as refused:
        house.send((name, RED))
    assert refused.value.errors[0].code == "unsafe_path"
    assert not list(tmp_path.glob("*.png"))


def test_names_are_made_fit_to_be_shown(house: House) -> None:
    house.send(("a\x00\x1b[31m.png", RED), ("", BLUE))
    assert list(house.captions()) == ["a\ufffd\ufffd[31m.png", "file-1"]


def test_captions_of_one_upload_are_counted_together(
    database: Database, decoders: DecoderPool, tmp_path: Path
) -> None:
    house = House(database, Settings(home=tmp_path / "home", max_dataset_images=1), decoders)
    table = b'{"file_name": "red.png", "text": "red"}\n'
    items = house.send(
        ("red.png", RED), ("red.txt", b"red"), ("metadata.jsonl", table * 2), ("x.txt", b"red"),
        ("y.txt", b"red"),
    )  # fmt: skip
    assert [codes(item) for item in items] == [
        *([], [], ["too_many_captions"], ["caption_without_image"], ["too_many_captions"])
    ]


def test_members_of_all_zips_are_counted_together(
    database: Database, decoders: DecoderPool, tmp_path: Path
) -> None:
    house = House(database, Settings(home=tmp_path / "home", max_zip_entries=3), decoders)
    two = uploads.zip_of({"a.txt": b"a", "b.txt": b"b"})
    items = house.send(("red.png", RED), ("1.zip", two), ("2.zip", two), ("3.zip", two))
    assert [item.filename for item in items[-2:]] == ["2.zip", "3.zip"]
    assert [codes(item) for item in items[-2:]] == [["too_many_entries"]] * 2


def test_a_useless_upload_tells_of_fifty_files(house: House) -> None:
    with pytest.raises(NoUsableFile, match="None of the 60 files") as refused:
        house.send(*[(f"{number}.png", b"text") for number in range(60)])
    assert len(refused.value.errors) == 50


@given(st.lists(st.tuples(st.integers(0, 300), st.binary(min_size=1, max_size=4)), min_size=1))
@hypothesis_settings(
    max_examples=150,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_a_zip_damaged_anywhere_leaves_the_other_files_alone(
    database: Database, settings: Settings, decoders: DecoderPool, wounds: list[tuple[int, bytes]]
) -> None:
    house = House(database, settings, decoders)
    archive = bytearray(uploads.zip_of({"a.txt": b"a", "b/c.txt": b"c"}, zipfile.ZIP_DEFLATED))
    for place, junk in wounds:
        at = max(4, place % len(archive))  # what it starts with makes it a zip
        archive[at : at + len(junk)] = junk
    items = house.send(("red.png", RED), ("a.zip", bytes(archive)), ("blue.png", BLUE))
    assert items[0].id
    assert items[-1].id


def test_a_picture_that_costs_too_much_leaves_the_others_alone(
    database: Database, settings: Settings
) -> None:
    bomb = uploads.picture(size=(9_000, 9_000), mode="1", color=0)
    pool = DecoderPool(settings, memory_bytes=150 * 1024**2)
    house = House(database, settings, pool)
    zipped = uploads.zip_of({"bomb.png": bomb, "dog.png": BLUE})
    items = house.send(("bomb.png", bomb), ("red.png", RED), ("a.zip", zipped))
    pool.close()
    costly = ["too_costly"]
    assert [codes(item) for item in items] == [costly, [], [], costly, []]
    assert house.blobs() == 2


def test_what_files_were_like_is_told_with_them_and_kept(house: House) -> None:
    saved_anew = uploads.picture(compress_level=0)
    first, again, sideways = house.send(
        ("red.png", RED), ("again.png", saved_anew), ("phone.jpg", uploads.sideways())
    )
    assert [codes(item) for item in (first, again, sideways)] == [[], ["duplicate"], ["turned"]]
    assert first.id
    assert first.id in again.flaws[0].detail
    with house.database.read() as session:
        images = service.images_of(session, house.dataset)
        listed = inspection.flaws_of(session, house.dataset, images)
        report = service.summary(session, house.dataset).report
    small = "small_picture"
    told = [[flaw.code for flaw in listed[image.id]] for image in images]
    assert told == [[small], ["duplicate", small], ["turned", small]]
    assert {each.code: each.images for each in report.suggestions} == {
        "small_pictures": [image.id for image in images],
        "duplicate_pictures": [again.id],
        "turned_pictures": [sideways.id],
        "mixed_sizes": [sideways.id],
    }


def test_the_same_pixels_in_another_upload_or_format_are_told(house: House) -> None:
    webp = uploads.picture("WEBP", lossless=True)
    house.send(("red.png", RED))
    assert [codes(item) for item in house.send(("red.webp", webp))] == [["duplicate"]]
    assert [codes(item) for item in house.send(("red.webp", webp))] == [["already_there"]]


def test_a_full_dataset_takes_no_more(
    database: Database, decoders: DecoderPool, tmp_path: Path
) -> None:
    settings = Settings(home=tmp_path / "home", max_dataset_images=1)
    house = House(database, settings, decoders)
    first, second = house.send(("red.png", RED), ("blue.png", BLUE))
    assert (codes(first), codes(second)) == ([], ["dataset_full"])


def test_a_frozen_dataset_takes_nothing_and_says_how_to_go_on(house: House) -> None:
    house.send(("red.png", RED))
    sha256 = house.freeze()
    assert house.freeze() == sha256
    with pytest.raises(DatasetFrozen, match="make a new one"):
        house.send(("blue.png", BLUE))
    assert house.blobs() == 1


def test_a_dataset_frozen_meanwhile_keeps_no_stray_file(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = house.store.put_file

    def freeze_then_put(key: str, source: Path | IO[bytes]) -> None:
        house.freeze()
        put(key, source)

    monkeypatch.setattr(house.store, "put_file", freeze_then_put)
    with pytest.raises(DatasetFrozen):
        house.send(("red.png", RED))
    assert house.blobs() == 0


def test_two_uploads_of_the_same_bytes_at_once_make_one_image(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = house.store.put_file
    ids: list[str | None] = []

    def race(key: str, source: Path | IO[bytes]) -> None:
        monkeypatch.undo()
        ids.extend(item.id for item in house.send(("first.png", RED)))
        put(key, source)

    monkeypatch.setattr(house.store, "put_file", race)
    items = house.send(("second.png", RED), ("second.txt", b"red"))
    assert [items[0].id] == ids
    assert codes(items[0]) == ["already_there"]
    assert house.captions() == {"first.png": "red"}
    assert house.blobs() == 1


def test_a_picture_that_is_deleted_during_an_upload_harms_no_other(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is sent again, of another a caption comes."""
    red, green = (house.send(sent)[0].id for sent in (("red.png", RED), ("green.png", GREEN)))
    put = house.store.put_file

    def delete_then_put(key: str, source: Path | IO[bytes]) -> None:
        with house.database.write() as session:
            for image in (red, green):
                session.delete(service.get_image(session, house.dataset, str(image)))
        put(key, source)

    monkeypatch.setattr(house.store, "put_file", delete_then_put)
    again, caption, blue = house.send(("red.png", RED), ("green.txt", b"green"), ("blue.png", BLUE))
    assert (again.id, codes(again)) == (None, ["deleted_meanwhile"])
    assert codes(caption) == []
    assert blue.id
    assert house.captions() == {"blue.png": None}


def test_of_an_upload_a_picture_that_came_meanwhile_goes_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = house.store.put_file

    def race(key: str, source: Path | IO[bytes]) -> None:
        monkeypatch.undo()
        house.send(("first.png", RED))
        put(key, source)

    monkeypatch.setattr(house.store, "put_file", race)
    house.send(("second.png", RED), ("blue.png", BLUE))
    deletions.carry_out(house.database, house.store)
    assert house.blobs() == 2
    with house.database.read() as session:
        keys = [pixels.stored_at(image) for image in service.images_of(session, house.dataset)]
        assert session.scalar(select(Deletion)) is None
    assert all(house.store.size(key) for key in keys)


def test_another_owner_finds_nothing(house: House) -> None:
    with pytest.raises(NotFound):
        house.send(("red.png", RED), owner="bob")


def test_the_hash_is_of_pictures_and_captions_and_of_no_order(
    database: Database, settings: Settings, decoders: DecoderPool
) -> None:
    def hash_of(*files: tuple[str, bytes]) -> str:
        house = House(database, settings, decoders)
        house.send(*files)
        return house.freeze()

    plain = hash_of(("red.png", RED), ("blue.png", BLUE))
    assert hash_of(("x.png", BLUE), ("y.png", RED)) == plain
    assert hash_of(("red.png", RED)) != plain
    assert hash_of(("red.png", RED), ("blue.png", BLUE), ("red.txt", b"red")) != plain


def test_an_empty_dataset_is_not_ready(house: House) -> None:
    with house.database.read() as session, pytest.raises(DatasetEmpty):
        service.require_ready(session, house.dataset)
    house.send(("red.png", RED))
    with house.database.read() as session:
        assert service.require_ready(session, house.dataset) == 1


def test_the_report_counts_what_is_missing(
    database: Database, settings: Settings, decoders: DecoderPool
) -> None:
    house = House(database, settings, decoders)
    with database.write() as session:
        house.dataset = service.create(session, "ann", name="captioned", kind="captioned")
    red, _ = house.send(("red.png", RED), ("blue.png", BLUE))[:2]
    house.send(("blue.txt", b"blue"))
    with database.read() as session:
        summary = service.summary(session, house.dataset)
    (problem,) = summary.report.problems
    assert (problem.code, problem.images) == ("dataset_not_captioned", [red.id])
    assert summary.images == 2
    assert summary.bytes == len(RED) + len(BLUE)
    assert [each.code for each in summary.report.suggestions] == ["small_pictures"]
    with database.read() as session:
        images = service.images_of(session, house.dataset)
        bare, told = inspection.flaws_of(session, house.dataset, images).values()
    assert [flaw.code for flaw in bare] == ["small_picture", "no_caption"]
    assert [flaw.code for flaw in told] == ["small_picture"]
