"""A folder to import from, and the command's work on each database."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from core.config import Settings
from core.datasets.importing import importer
from core.datasets.importing.report import Report
from core.db.engine import Database
from core.db.models import Dataset, Image


@dataclass(frozen=True)
class House:
    database: Database
    settings: Settings
    data: Path
    """A root."""

    def take(
        self,
        path: Path | None = None,
        tell: Callable[[int, int], None] = lambda images, left_out: None,
        **options: Any,
    ) -> Report:
        return importer.import_folder(
            path or self.data, self.settings, tell, **({"name": "pets"} | options)
        )

    def images(self, report: Report) -> list[Image]:
        with self.database.read() as session:
            mine = select(Image).where(Image.dataset_id == report.dataset)
            return list(session.scalars(mine.order_by(Image.id)))

    def captions(self, report: Report) -> dict[str, str | None]:
        return {image.filename: image.caption for image in self.images(report)}

    def datasets(self) -> list[str]:
        """Anybody's, nobody's too."""
        with self.database.read() as session:
            return list(session.scalars(select(Dataset.id)))


def left_out(report: Report) -> dict[str, int]:
    return {each.code: each.files for each in report.left_out}


@pytest.fixture
def house(any_database: Database, settings: Settings, tmp_path: Path) -> House:
    return _house(any_database, settings, tmp_path)


@pytest.fixture
def small_house(database: Database, settings: Settings, tmp_path: Path) -> House:
    """On SQLite alone: of what the database has no part in."""
    return _house(database, settings, tmp_path)


def _house(database: Database, settings: Settings, tmp_path: Path) -> House:
    data = tmp_path / "data"
    data.mkdir()
    url = database.engine.url.render_as_string(hide_password=False)
    own = Settings(home=settings.home, database_url=url, import_roots=[data])
    return House(database, own, data)
