"""Pictures that a table names, a `metadata.jsonl` or `.parquet` with `file_name` and `text`."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from core.config import MIB
from core.datasets import archives, captions
from core.datasets.captions import Caption
from core.datasets.importing.candidate import Candidate, Found
from core.datasets.importing.roots import Roots
from core.files.names import shown
from core.pictures.refusal import Flaw, Refused

JSONL, PARQUET = "metadata.jsonl", "metadata.parquet"
MAX_LINE_BYTES = MIB
"""A caption may have 24,000; other columns are passed over."""
_COLUMNS = ["file_name", "text"]
_AT_ONCE = 1_000
"""Rows of a parquet in memory."""


def found(folder: Path, name: str, roots: Roots) -> Found:
    """In the table's order, which is read as it goes; what it does not name is left alone."""
    try:
        with roots.opened(folder / name, name) as file:
            for row in _read_parquet(file) if name == PARQUET else _read_jsonl(file):
                yield row.flaw if isinstance(row, Refused) else _candidate(row)
    except Refused as refused:
        yield refused.flaw


def _candidate(row: Caption) -> Candidate | Flaw:
    if archives.is_unsafe(row.picture):
        return Flaw("unsafe_path", f"{shown(row.picture)!r} leads out of its folder.")
    return Candidate(row.picture, shown(row.picture) or row.picture, row.text)


def _read_jsonl(file: BinaryIO) -> Iterator[Caption | Refused]:
    number = 0
    while line := file.readline(MAX_LINE_BYTES):
        number += 1
        where = f"line {number} of {JSONL}"
        if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            raise Refused("too_large", f"From {where} on nothing was read: it is over a megabyte.")
        if line.strip():
            yield captions.read_line(line, where, PurePosixPath())


def _read_parquet(file: BinaryIO) -> Iterator[Caption | Refused]:
    import pyarrow  # half a second, and only here
    from pyarrow import parquet

    try:
        # without pre_buffer: with it, whole groups of rows are in memory
        table = parquet.ParquetFile(file, pre_buffer=False)
        if missing := {*_COLUMNS} - {*table.schema_arrow.names}:
            raise Refused("bad_metadata", f"{PARQUET} has no column `{min(missing)}`.")
        number = 0
        for batch in table.iter_batches(_AT_ONCE, columns=_COLUMNS):
            names, texts = (batch.column(column).to_pylist() for column in _COLUMNS)
            for name, text in zip(names, texts, strict=True):
                number += 1
                yield captions.read_row(name, text, f"row {number} of {PARQUET}")
    except pyarrow.ArrowException as error:
        raise Refused("truncated", f"{PARQUET} is damaged or no parquet.") from error
