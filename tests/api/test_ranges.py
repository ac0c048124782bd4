"""Ranges of bytes, against a plain reading of RFC 9110."""

from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.ranges import is_unchanged, part_of
from core.errors import RangeNotSatisfiable

ETAG = '"abc"'
DATA = bytes(range(200))
sizes = st.integers(0, 200)
positions = st.integers(0, 300)


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-99", 0, 10),
        ("bytes=3-", 3, 10),
        ("bytes=-3", 7, 10),
        ("bytes=-99", 0, 10),
        ("Bytes = 2 - 4", 2, 5),
    ],
)
def test_one_range(header: str, start: int, end: int) -> None:
    part = part_of(10, ETAG, range_header=header)
    assert (part.status, part.start, part.end) == (HTTPStatus.PARTIAL_CONTENT, start, end)
    assert part.content_range == f"bytes {start}-{end - 1}/10"


@pytest.mark.parametrize(
    "header",
    ["", "bytes", "bytes=", "bytes=-", "bytes=5-4", "bytes=a-b", "items=0-1", "bytes=0-1,3-4"],
)
def test_what_cannot_be_read_is_passed_over(header: str) -> None:
    part = part_of(10, ETAG, range_header=header)
    assert (part.status, part.start, part.end) == (HTTPStatus.OK, 0, 10)


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=10-20", "bytes=-0"])
def test_outside(header: str) -> None:
    with pytest.raises(RangeNotSatisfiable):
        part_of(10, ETAG, range_header=header)


@pytest.mark.parametrize(
    ("if_range", "status"),
    [(ETAG, 206), ('"other"', 200), ('W/"abc"', 200), ("Mon, 23 Nov 2026 08:00:00 GMT", 200)],
)
def test_if_range_is_a_strong_comparison(if_range: str, status: int) -> None:
    assert part_of(10, ETAG, range_header="bytes=0-1", if_range=if_range).status == status


@pytest.mark.parametrize(
    ("header", "same"),
    [
        (ETAG, True),
        ('W/"abc"', True),
        ('"x", "abc"', True),
        ("*", True),
        ('"x"', False),
        ("", False),
        (None, False),
    ],
)
def test_if_none_match(header: str | None, same: bool) -> None:
    assert is_unchanged(ETAG, header) is same


@given(sizes, positions, positions)
def test_a_range_is_the_slice_it_names(size: int, first: int, last: int) -> None:
    expected = DATA[:size][first : last + 1]
    try:
        part = part_of(size, ETAG, range_header=f"bytes={first}-{last}")
    except RangeNotSatisfiable:
        assert first >= size
        return
    if first > last:
        assert part.status == HTTPStatus.OK
    else:
        assert DATA[:size][part.start : part.end] == expected != b""


@given(sizes, st.integers(0, 300))
def test_a_suffix_is_the_end_of_the_file(size: int, count: int) -> None:
    try:
        part = part_of(size, ETAG, range_header=f"bytes=-{count}")
    except RangeNotSatisfiable:
        assert size == 0 or count == 0
        return
    assert DATA[:size][part.start : part.end] == DATA[:size][-count:]


@given(sizes, st.text(max_size=30))
def test_no_header_breaks_it(size: int, header: str) -> None:
    try:
        part = part_of(size, ETAG, range_header=header)
    except RangeNotSatisfiable:
        return
    assert 0 <= part.start <= part.end <= size
