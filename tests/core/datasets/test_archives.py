"""Zips: what is read, and everything a zip can do to harm."""

import io
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.config import Settings
from core.datasets import archives
from core.pictures.refusal import Refused
from tests.support import uploads


def read(content: bytes, settings: Settings, max_members: int = 100) -> dict[str, bytes | str]:
    """What each member holds, or the code of its refusal."""
    file = io.BytesIO(content)
    return {
        member.name: member.content.read() if member.content else member.flaw.code  # type: ignore[union-attr]
        for member in archives.members(file, "a.zip", settings, max_members)
    }


def test_members_come_in_order_and_leftovers_do_not(settings: Settings) -> None:
    content = uploads.zip_of(
        {
            "b.png": b"b",
            "folder/": b"",
            "folder/a.png": b"a",
            "__MACOSX/folder/._a.png": b"x",
            ".DS_Store": b"x",
            "Thumbs.db": b"x",
        },
        zipfile.ZIP_DEFLATED,
    )
    assert list(read(content, settings).items()) == [("b.png", b"b"), ("folder/a.png", b"a")]


@pytest.mark.parametrize(
    "name",
    ["../x.png", "a/../../x", "/etc/passwd", "..\\x.png", "C:\\x.png", "c:x", "\\\\host\\x"],
)
def test_names_that_lead_outside_are_refused(name: str, settings: Settings) -> None:
    found = read(uploads.zip_of({name: b"x", "good.png": b"good"}), settings)
    assert sorted(map(str, found.values())) == sorted(["unsafe_path", str(b"good")])


@pytest.mark.parametrize("name", ["dog...png", "..dog.png", "a..b/c.png", "von … bis.png"])
def test_honest_names_with_dots_are_taken(name: str, settings: Settings) -> None:
    assert read(uploads.zip_of({name: b"x"}), settings) == {name: b"x"}


@given(st.text(min_size=1, max_size=40))
def test_no_name_that_passes_leads_out_of_a_folder(name: str) -> None:
    if not archives.is_unsafe(name):
        root = Path("/home/of/it")
        inside = Path(str(root) + "/" + name.replace("\\", "/"))
        assert ".." not in inside.parts
        assert inside.is_relative_to(root)
        assert not Path(name).is_absolute()


def test_links_and_passwords_and_rare_methods_are_refused(settings: Settings) -> None:
    assert read(uploads.zip_with_link("dog.png", "/etc/passwd"), settings) == {"dog.png": "link"}
    locked = uploads.encrypted(uploads.zip_of({"dog.png": b"x"}))
    assert read(locked, settings) == {"dog.png": "encrypted"}
    rare = uploads.zip_of({"dog.png": b"x" * 50}, zipfile.ZIP_LZMA)
    assert read(rare, settings) == {"dog.png": "unsupported_compression"}


@pytest.mark.parametrize("mode", [0o010666, 0o020666, 0o060666, 0o140666])
def test_pipes_devices_and_sockets_are_refused(mode: int, settings: Settings) -> None:
    content = uploads.zip_with_link("dog.png", "", mode=mode)
    assert read(content, settings) == {"dog.png": "link"}


@pytest.mark.parametrize(
    ("claimed_bytes", "gives"), [(10, "truncated"), (9_999, "truncated"), (90_000, b"dog" * 10_000)]
)
def test_what_the_table_says_of_a_size_changes_nothing(
    claimed_bytes: int, gives: bytes | str, settings: Settings
) -> None:
    """Less than there is fails the checksum, after so many bytes; more gives what there is."""
    content = bytearray(uploads.zip_of({"a.png": b"dog" * 10_000}, zipfile.ZIP_DEFLATED))
    at = content.index(b"PK\x01\x02") + 24
    content[at : at + 4] = claimed_bytes.to_bytes(4, "little")
    ample = settings.model_copy(update={"max_zip_ratio": 10_000})
    assert read(bytes(content), ample) == {"a.png": gives}


def test_a_member_above_the_cap_is_refused_alone(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, max_image_bytes=100)
    found = read(uploads.zip_of({"big.png": b"x" * 101, "small.png": b"x"}), settings)
    assert found == {"big.png": "too_large", "small.png": b"x"}


def test_a_damaged_member_is_refused_alone(settings: Settings) -> None:
    content = uploads.zip_of({"bad.png": b"bad bytes", "good.png": b"good"})
    found = read(content.replace(b"bad bytes", b"sad bytes", 1), settings)
    assert found == {"bad.png": "truncated", "good.png": b"good"}


def refusal(content: bytes, settings: Settings) -> str:
    with pytest.raises(Refused) as refused:
        read(content, settings)
    return refused.value.flaw.code


def test_bombs_are_known_by_ratio_and_by_bytes(tmp_path: Path) -> None:
    squeezed = uploads.zip_of({"a": b"\0" * 2_000_000}, zipfile.ZIP_DEFLATED)
    assert refusal(squeezed, Settings(home=tmp_path)) == "zip_bomb"
    large = uploads.zip_of({"a": b"x" * 600, "b": b"x" * 600})
    assert refusal(large, Settings(home=tmp_path, max_zip_bytes=1000)) == "zip_bomb"


def test_overlapping_members_are_a_bomb(tmp_path: Path) -> None:
    """The trick of zip bombs without recursion: many names for the same packed bytes."""
    single = uploads.zip_of({"a": b"\0" * 100_000}, zipfile.ZIP_DEFLATED)
    start = single.index(b"PK\x01\x02")
    end = single.index(b"PK\x05\x06")
    entry = single[start:end]
    tail = bytearray(single[end:])
    count = 50
    tail[8:10] = tail[10:12] = count.to_bytes(2, "little")
    tail[12:16] = (len(entry) * count).to_bytes(4, "little")
    overlapping = single[:start] + entry * count + bytes(tail)
    assert refusal(overlapping, Settings(home=tmp_path)) == "zip_bomb"


def test_too_many_entries(settings: Settings) -> None:
    content = uploads.zip_of({str(number): b"" for number in range(4)})
    assert len(read(content, settings, max_members=4)) == 4
    with pytest.raises(Refused) as refused:
        read(content, settings, max_members=3)
    assert refused.value.flaw.code == "too_many_entries"


def test_a_name_that_is_empty_damages_the_zip(settings: Settings) -> None:
    assert refusal(uploads.zip_of({"a.png": b"x"}).replace(b"a.png", b"\0.png"), settings)


def test_a_huge_table_of_contents_is_never_read(tmp_path: Path) -> None:
    content = uploads.zip_of({"a": b"x"})
    end = content.index(b"PK\x05\x06")
    tail = bytearray(content[end:])
    tail[12:16] = (3 * 1024**2).to_bytes(4, "little")
    padded = content[:end] + b"\0" * 3 * 1024**2 + bytes(tail)
    assert refusal(padded, Settings(home=tmp_path, max_zip_entries=1)) == "truncated"


@pytest.mark.parametrize("keep", [4, 30, -1, -30])
def test_a_cut_zip_is_damaged(keep: int, settings: Settings) -> None:
    content = uploads.zip_of({"dog.png": b"x" * 100})[:keep]
    assert refusal(content, settings) == "truncated"


@given(st.binary(max_size=300))
def test_garbage_is_refused_and_nothing_worse(content: bytes) -> None:
    settings = Settings(home=Path("nowhere"))
    with suppress(Refused):
        read(b"PK\x03\x04" + content, settings)
