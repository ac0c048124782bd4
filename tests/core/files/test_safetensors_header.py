"""Headers of files that strangers send: what is read, and everything that does not add up."""

import io
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from core.files import safetensors_header as header
from core.files.safetensors_header import Damaged, Entry, Header
from tests.support.loras import raw_file, with_header

TWO = {"a": ("F32", [2], b"\0" * 8), "b": ("F16", [], b"\0" * 2)}


def read(content: bytes) -> Header:
    return header.read(io.BytesIO(content))


def told(*offsets: list[Any], shape: Any = [1], dtype: Any = "F32") -> bytes:  # noqa: B006
    """A header with a tensor for each pair of offsets."""
    entries = {
        f"t{number}": {"dtype": dtype, "shape": shape, "data_offsets": pair}
        for number, pair in enumerate(offsets)
    }
    return json.dumps(entries).encode()


def test_tensors_and_metadata_are_told() -> None:
    content = raw_file(TWO, {"x": "y"})
    start = len(content) - 10
    assert read(content) == Header(
        {"x": "y"},
        {"a": Entry("F32", (2,), start, start + 8), "b": Entry("F16", (), start + 8, start + 10)},
    )
    assert read(with_header(b"{}", b"")) == Header({}, {})
    assert read(with_header(b"{}   ", b"")) == Header({}, {})


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "ends after 0 bytes"),
        (b"\2\0\0", "ends after 3 bytes"),
        (with_header(b"{}", b"", length=2**63), "claims a header"),
        (with_header(b"{}", b"", length=3), "claims a header"),
        (with_header(b"{}" + b" " * header.MAX_HEADER_BYTES, b""), "claims a header"),
        (with_header(b"", b""), "no JSON"),
        (with_header(b"{", b""), "no JSON"),
        (with_header(b"\xff\xfe", b""), "no JSON"),
        (with_header(b"[" * 100_000, b""), "no JSON"),
        (with_header(b'{"a": NaN}', b""), "NaN is no number"),
        (with_header(b'{"a": ' + b"9" * 5000 + b"}", b""), "no JSON"),
        (with_header(b'{"__metadata__": {"a": "\\ud800"}}', b""), "no JSON"),
        (with_header(b'{"a": 1, "a": 1}', b""), "a name comes twice"),
        (with_header(b'{"__metadata__": {"a": "", "a": ""}}', b""), "a name comes twice"),
        (with_header(b"[]", b""), "no JSON object"),
        (with_header(b" {}", b""), "no JSON object"),
        (with_header(b'{"__metadata__": {"a": 1}}', b""), "no table of texts"),
        (with_header(b'{"__metadata__": []}', b""), "no table of texts"),
        (with_header(b'{"a": 1}', b""), "`a` is not told by"),
        (with_header(b'{"a": {"dtype": "F32", "shape": []}}', b""), "`a` is not told by"),
        (with_header(b'{"a\\u0000": {}}', b""), "not printable"),
        (with_header(json.dumps({"a" * 301: {}}).encode(), b""), "too long"),
        (with_header(told([0, 4], dtype="Q8"), b"\0" * 4), "dtype that nobody knows"),
        (with_header(told([0, 4], dtype=["F32"]), b"\0" * 4), "dtype that nobody knows"),
        (with_header(told([0, 4], shape=[True]), b"\0" * 4), "not whole numbers"),
        (with_header(told([0, 4], shape=[-1]), b"\0" * 4), "not whole numbers"),
        (with_header(told([0, 4], shape=[1.0]), b"\0" * 4), "not whole numbers"),
        (with_header(told([0, 4], shape=1), b"\0" * 4), "not whole numbers"),
        (with_header(told([0, 4], shape=[2**63]), b"\0" * 4), "not whole numbers"),
        (with_header(told([0, 4], shape=[1] * 100_000), b"\0" * 4), "not whole numbers"),
        (with_header(told([-4, 0]), b""), "not whole numbers"),
        (with_header(told([0]), b""), "not whole numbers"),
        (with_header(told([0, 4, 8]), b"\0" * 4), "not whole numbers"),
        (with_header(told([4, 0]), b"\0" * 4), "another number of bytes"),
        (with_header(told([0, 4], shape=[2]), b"\0" * 4), "another number of bytes"),
        (with_header(told([0, 4], dtype="F16"), b"\0" * 4), "another number of bytes"),
        (with_header(told([0, 4], [0, 4]), b"\0" * 4), "`t1` begins at"),
        (with_header(told([0, 4], [2, 6]), b"\0" * 6), "`t1` begins at"),
        (with_header(told([0, 4], [8, 12]), b"\0" * 12), "`t1` begins at"),
        (with_header(told([4, 8]), b"\0" * 8), "`t0` begins at"),
        (with_header(told([0, 4]), b"\0" * 3), "the file at"),
        (with_header(told([0, 4]), b"\0" * 5), "the file at"),
    ],
)  # fmt: skip
def test_what_does_not_add_up(content: bytes, why: str) -> None:
    with pytest.raises(Damaged, match=why):
        read(content)


some_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=12,
)


@given(some_json | st.dictionaries(st.text(max_size=5), st.fixed_dictionaries(
    {"dtype": st.sampled_from(["F32", "F16"]) | some_json, "shape": st.lists(st.integers())
     | some_json, "data_offsets": st.lists(st.integers(), min_size=2, max_size=2) | some_json}
)), st.binary(max_size=64))  # fmt: skip
def test_any_header_is_read_or_refused(document: Any, data: bytes) -> None:
    with suppress(Damaged):
        read(with_header(json.dumps(document).encode(), data))


@given(st.data())
def test_a_file_with_one_byte_changed_is_read_or_refused(draw: st.DataObject) -> None:
    content = bytearray(raw_file(TWO, {"x": "y"}))
    at = draw.draw(st.integers(0, len(content) - 1))
    content[at] = draw.draw(st.integers(0, 255))
    with suppress(Damaged):
        found = read(bytes(content))
        assert max(entry.end for entry in found.tensors.values()) == len(content)


def test_it_tells_what_the_library_wrote(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.zeros(0), "c": torch.ones(2).half()}
    save_file(tensors, path, metadata={"format": "pt"})
    content = path.read_bytes()
    told = header.read(io.BytesIO(content))
    assert told.metadata == {"format": "pt"}
    for key, entry in told.tensors.items():
        assert entry.shape == tuple(tensors[key].shape)
        assert content[entry.start : entry.end] == tensors[key].numpy().tobytes()


def test_what_is_written_is_read() -> None:
    entry = {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]}
    content = header.text({"a": entry}) + bytes(4)
    begin = len(content) - 4
    assert begin % 8 == 0
    assert header.read(io.BytesIO(content)).tensors == {"a": Entry("F16", (2,), begin, begin + 4)}


def test_a_name_is_shown_without_escapes() -> None:
    assert header.shown("\x1b[2J" + "a" * 200) == "?[2J" + "a" * 96
