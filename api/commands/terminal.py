"""What is said: tables and bars for people, tab-separated lines when nobody watches."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

out = Console(highlight=False, emoji=False)
err = Console(stderr=True, highlight=False, emoji=False)


def say(sentence: str) -> None:
    """For the person: on stderr, so that what a pipe reads is results alone."""
    err.print(sentence, markup=False, soft_wrap=True)


def line(*cells: object) -> None:
    """One result, cells apart by tabs."""
    typer.echo("\t".join(map(_text, cells)))  # rich would turn the tabs into spaces


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table at a terminal; in a pipe the rows alone, so that `cut` and `read` can have them."""
    if not out.is_terminal:
        for row in rows:
            line(*row)
        return
    drawn = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        drawn.add_row(*(Text(_text(cell)) for cell in row))  # a caption may look like markup
    out.print(drawn)


def facts(pairs: Iterable[tuple[str, object]]) -> None:
    """One thing, a fact a line; facts that are not there are left out."""
    for name, value in pairs:
        if value not in (None, "", {}, []):
            line(f"{name:<12}" if out.is_terminal else name, value)


@contextmanager
def counting() -> Iterator[Callable[[int, int], None]]:
    """A bar of unknown length at a terminal, while somebody tells how many pictures are in and how
    many were left out; nothing in a pipe."""
    words = TextColumn("{task.description}", markup=False)
    columns = (SpinnerColumn(), BarColumn(30), words, TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def tell(images: int, left_out: int) -> None:
            bar.update(task, description=f"{images:,} pictures, {left_out:,} left out")

        yield tell


@contextmanager
def transferring(name: str) -> Iterator[Callable[[int, int], None]]:
    """A bar at a terminal, while somebody tells how many bytes have come or gone, and of how many;
    nothing in a pipe."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(30),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task(name, total=None)

        def tell(done_bytes: int, total_bytes: int) -> None:
            bar.update(task, completed=done_bytes, total=total_bytes)

        yield tell


def seconds_text(seconds: float) -> str:
    """``45 s``, ``3 min 20 s``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def bytes_text(count: int) -> str:
    """``812 B``, ``4.1 MB``: powers of ten, as disks and networks count."""
    size, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size /= 1000
        units.pop(0)
    return f"{size:.0f} B" if units[0] == "B" else f"{size:.1f} {units[0]}"


def short(path: Path) -> str:
    """Relative to where the person stands, where that is shorter."""
    here = Path.cwd()
    if not path.is_relative_to(here):
        return str(path)
    return str(path.relative_to(here))


def _text(cell: object) -> str:
    return "" if cell is None else str(cell)
