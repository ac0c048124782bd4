"""What every test may ask for."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.config import Settings
from core.db.engine import Database
from tests.support.databases import migrated, postgres_url, sqlite_url


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A home of this test's own."""
    settings = Settings(home=tmp_path / "home")
    settings.prepare()
    return settings


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    """SQLite in the home of ``settings``."""
    with migrated(settings.effective_database_url) as database:
        yield database


@pytest.fixture(params=["sqlite", "postgresql"])
def any_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """The same test on both databases that Stillroom runs on."""
    if request.param == "sqlite":
        with migrated(sqlite_url(tmp_path)) as database:
            yield database
    else:
        with postgres_url() as url, migrated(url) as database:
            yield database
