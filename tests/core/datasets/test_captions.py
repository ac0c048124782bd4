"""Captions find their pictures by name."""

import io

import pytest

from core.datasets import captions
from core.datasets.captions import Caption, Names, NoSuchPicture
from core.pictures.refusal import Refused


def stem(picture: str) -> Caption:
    return Caption(picture, "stem", "a dog")


def test_the_text_names_the_picture_beside_it() -> None:
    caption = captions.read_text(io.BytesIO(b"\xef\xbb\xbf a dog\n"), "a.zip/sub/dog.txt")
    assert caption == Caption("a.zip/sub/dog", "stem", "a dog")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"\xff\xfe\x00", "not_text"),
        (b"a\0b", "not_text"),
        (b"x" * 4001, "caption_too_long"),
        (b"x" * 100_000, "caption_too_long"),
    ],
)
def test_what_is_no_caption(content: bytes, code: str) -> None:
    with pytest.raises(Refused) as refused:
        captions.read_text(io.BytesIO(content), "dog.txt")
    assert refused.value.flaw.code == code


def test_a_table_goes_line_by_line_from_its_own_folder() -> None:
    table = rb"""{"file_name": "dog.png", "text": " a dog ", "more": 1}

[]
{"file_name": 1}
{"
{"file_name": "a", "text": "\ud800"}
{"file_name": "\ud800", "text": "a"}
{"file_name": "a", "text": "\u0000"}
"""
    lines = list(captions.read_table(io.BytesIO(table), "a.zip/metadata.jsonl", 9))
    assert lines[0] == Caption("a.zip/dog.png", "name", "a dog")
    bad = [line for line in lines[1:] if isinstance(line, Refused)]
    assert [line.flaw.code for line in bad] == ["bad_metadata"] * 6
    assert "line 3 of a.zip/metadata.jsonl" in bad[0].flaw.detail


@pytest.mark.parametrize(
    ("table", "code"),
    [
        (b"{}\n" * 4, "too_many_captions"),
        (b" " * (captions.MAX_TABLE_BYTES + 1), "too_large"),
    ],
)
def test_a_table_that_is_too_long_is_refused_before_any_line(table: bytes, code: str) -> None:
    with pytest.raises(Refused) as refused:
        next(captions.read_table(io.BytesIO(table), "metadata.jsonl", 3))
    assert refused.value.flaw.code == code
    assert len(list(captions.read_table(io.BytesIO(b"{}\n" * 3), "metadata.jsonl", 3))) == 3


def test_only_a_line_end_ends_a_line() -> None:
    table = '{"file_name": "a.png", "text": "one\u2028two"}\r\n'.encode()
    (line,) = captions.read_table(io.BytesIO(table), "metadata.jsonl", 1)
    assert line == Caption("a.png", "name", "one\u2028two")


def test_the_same_folder_wins_and_then_the_same_upload() -> None:
    sent = Names([("a.zip/dog.png", "zipped"), ("b.zip/dog.png", "other")])
    there = Names([("dog.png", "old"), ("cat.png", "old cat")])
    assert captions.image_for(stem("a.zip/dog"), sent, there) == "zipped"
    assert captions.image_for(stem("dog"), sent, there) == "old"
    assert captions.image_for(stem("elsewhere/cat"), sent, there) == "old cat"
    by_name = Caption("b.zip/dog.png", "name", "a dog")
    assert captions.image_for(by_name, sent, there) == "other"


def test_none_and_several_are_told_apart() -> None:
    sent = Names([("dog.png", "one"), ("dog.jpg", "two")])
    with pytest.raises(NoSuchPicture) as several:
        captions.image_for(stem("dog"), sent, Names([]))
    assert several.value.code == "caption_ambiguous"
    with pytest.raises(NoSuchPicture) as none:
        captions.image_for(stem("cat"), sent, Names([]))
    assert none.value.code == "caption_without_image"


def test_the_same_picture_sent_twice_is_one() -> None:
    sent = Names([("dog.png", "one"), ("dog.png", "one")])
    assert captions.image_for(stem("dog"), sent, Names([])) == "one"
