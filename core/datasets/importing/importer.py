"""A dataset of pictures that lie on this disk, by reference: nothing is copied.

Each file is read once. Memory is the same for ten pictures as for a million: what was examined
goes to the database in batches.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from sqlalchemy import select

from core.config import Settings
from core.datasets import report as summaries
from core.datasets.importing import layouts
from core.datasets.importing.candidate import Candidate, Found
from core.datasets.importing.examination import Examination
from core.datasets.importing.layouts import Layout
from core.datasets.importing.report import LeftOut, Report, Tally
from core.datasets.importing.roots import Roots
from core.datasets.importing.staging import Staged
from core.datasets.service import Kind
from core.db.engine import Database
from core.db.models import Key
from core.errors import NotFound, NoUsableFile, Problem
from core.owners.service import ADMIN
from core.pictures.refusal import Flaw

AT_ONCE = 256
"""Pictures of a batch, which is one short transaction."""
THREADS = 4
"""That read: a mount answers each late, and hashing lets other threads go on."""


def import_folder(
    path: Path,
    settings: Settings,
    tell: Callable[[int, int], None],
    *,
    name: str,
    kind: Kind | None = None,
    owner: str = ADMIN,
    decode: bool = False,
) -> Report:
    """A dataset of all that can be used below ``path``, frozen from the start.

    Args:
        tell: hears how many files are in and how many were left out, after each batch.
        kind: None: ``captioned`` where a picture has a caption.
        decode: unpack every picture, too.

    Raises:
        Unprocessable: ``path`` may not be imported, or is laid out in two ways.
        NotFound: it is not there, or ``owner`` has no key.
        NoUsableFile: nothing can be used; its errors say why.
    """
    roots = Roots.of(settings)
    layout = layouts.find(roots.require(path), roots)
    examination = Examination(layout.folder, roots, settings, decode)
    database = Database.of(settings)
    try:
        _require_owner(database, owner)
        staged = Staged(database, name=name, folder=layout.folder)
        try:
            tally = _fill(staged, layout.found, examination, tell)
            return _publish(database, staged, layout, tally, owner, kind, decode)
        except BaseException:  # Ctrl-C too
            staged.discard()
            raise
    finally:
        database.dispose()


def _fill(
    staged: Staged, found: Found, examination: Examination, tell: Callable[[int, int], None]
) -> Tally:
    tally, images = Tally(), 0
    with ThreadPoolExecutor(THREADS) as pool:
        for batch in _batches(found):
            candidates = [each for each in batch if isinstance(each, Candidate)]
            examined = list(pool.map(examination.row, candidates))
            rows = [row for row in examined if not isinstance(row, Flaw)]
            doubles = staged.add(rows)
            images += len(rows) - len(doubles)
            for flaw in (*batch, *examined, *doubles):
                if isinstance(flaw, Flaw):
                    tally.leave_out(flaw)
            tell(images, tally.files)
    return tally


def _batches(found: Found) -> Iterator[list[Candidate | Flaw]]:
    while batch := list(islice(found, AT_ONCE)):
        yield batch


def _publish(
    database: Database,
    staged: Staged,
    layout: Layout,
    tally: Tally,
    owner: str,
    kind: Kind | None,
    decoded: bool,
) -> Report:
    settled, bare, names = staged.settle(kind)
    if bare:
        sentences = [f"{name} has no caption." for name in names]
        tally.leave_out_many(LeftOut(code="caption_missing", files=bare, first=sentences))
    if staged.is_empty:
        raise _nothing(layout, tally)
    dataset = staged.publish(owner, settled)
    with database.read() as session:
        held = summaries.summaries(session, [dataset])[dataset.id]
    return Report(
        dataset=dataset.id,
        name=dataset.name,
        kind=settled,
        layout=layout.name,
        images=held.images,
        bytes=held.bytes,
        sha256=str(dataset.sha256),
        decoded=decoded,
        left_out=list(tally.left_out.values()),
    )


def _nothing(layout: Layout, tally: Tally) -> NoUsableFile:
    sentences = [
        Problem("", each.code, sentence)
        for each in tally.left_out.values()
        for sentence in each.first
    ]
    why = "it is empty."
    if sentences:
        why = f"none of {tally.files:,} files can be used: {sentences[0].detail}"
    return NoUsableFile(f"{layout.folder}, taken for {layout.name}: {why}", errors=sentences)


def _require_owner(database: Database, owner: str) -> None:
    """The administrator's first key may be yet to come."""
    with database.read() as session:
        known = session.scalar(select(Key.id).where(Key.owner == owner).limit(1))
    if owner != ADMIN and known is None:
        raise NotFound(f"No key belongs to '{owner}': make one with `stillroom keys create` first.")
