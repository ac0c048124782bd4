"""A dataset that is being filled: nobody's until it is whole, so that nobody sees a part of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.orm import Session

from core.datasets import removal, service
from core.datasets.importing.report import SHOWN
from core.datasets.removal import ABANDONED
from core.datasets.service import NOBODY, Kind
from core.db.engine import Database
from core.db.models import Dataset, Image, now
from core.errors import Conflict
from core.ids import new_id
from core.pictures.refusal import Flaw


class Staged:
    """The rows of one import, in short transactions: others write in between."""

    def __init__(self, database: Database, *, name: str, folder: Path) -> None:
        self.id = new_id("dst")
        self._database = database
        with database.write() as session:
            session.add(
                Dataset(id=self.id, owner=NOBODY, name=name, kind="captioned", folder=str(folder))
            )

    def add(self, rows: Sequence[dict[str, Any]]) -> list[Flaw]:
        """Keeps those whose bytes are new. Returns a flaw for each other one."""
        with self._database.write() as session:
            self._touch(session, created_at=now())
            known = self._known(session, [row["sha256"] for row in rows])
            fresh, flaws = [], []
            for row in rows:
                if row["sha256"] in known:
                    flaws.append(
                        Flaw("already_there", f"{row['filename']} is the same as an earlier one.")
                    )
                else:
                    known.add(row["sha256"])
                    fresh.append(row | {"id": new_id("img"), "dataset_id": self.id})
            if fresh:
                session.execute(insert(Image), fresh)
        return flaws

    def settle(self, kind: Kind | None) -> tuple[Kind, int, list[str]]:
        """Its kind, ``captioned`` where nobody said one and there is a caption. Of that kind,
        pictures without one are of no use: they are let go, and told by their number and the names
        of the first."""
        mine, bare = Image.dataset_id == self.id, Image.caption.is_(None)
        with self._database.write() as session:
            self._touch(session, created_at=now())
            if kind is None:
                one = select(Image.id).where(mine, ~bare).limit(1)
                kind = "captioned" if session.scalar(one) else "instance"
            if kind == "instance":
                return kind, 0, []
            names = select(Image.filename).where(mine, bare).order_by(Image.id).limit(SHOWN)
            first = list(session.scalars(names))
            count = session.scalar(select(func.count()).where(mine, bare)) or 0
            session.execute(delete(Image).where(mine, bare))
        return kind, count, first

    @property
    def is_empty(self) -> bool:
        with self._database.read() as session:
            one = select(Image.id).where(Image.dataset_id == self.id).limit(1)
            return session.scalar(one) is None

    def publish(self, owner: str, kind: Kind) -> Dataset:
        """From here on it is ``owner``'s, whole and frozen."""
        with self._database.read() as session:
            sha256 = service.content_sha256(session, self.id)
        with self._database.write() as session:
            self._touch(session, owner=owner, kind=kind, sha256=sha256, created_at=now())
            return session.get_one(Dataset, self.id)

    def discard(self) -> None:
        removal.discard(self._database, self.id)

    def _known(self, session: Session, hashes: Sequence[str]) -> set[str]:
        mine = select(Image.sha256).where(Image.dataset_id == self.id)
        return set(session.scalars(mine.where(Image.sha256.in_(hashes))))

    def _touch(self, session: Session, **values: Any) -> None:
        """Raises Conflict where it was taken for abandoned."""
        mine = update(Dataset).where(Dataset.id == self.id, Dataset.owner == NOBODY)
        if session.scalar(mine.values(**values).returning(Dataset.id)) is None:
            raise Conflict(f"Nothing came for {ABANDONED.days} day and the import was given up.")
