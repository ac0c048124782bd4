"""What every test may ask for."""

from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from core.config import Settings
from core.db.engine import Database
from tests.support.databases import postgres_database, sqlite_database
from tests.support.telling import pytest_terminal_summary, tell

__all__ = ["pytest_terminal_summary", "tell"]

LONG = ("faults", "e2e", "core/training", "page", "core/nano")
"""Folders whose files take a minute or more each."""

hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")  # other tests have the processors, too


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first: of two that run them, neither is left alone with one at the end."""
    here = Path(__file__).parent

    def is_short(item: pytest.Item) -> bool:
        return not item.path.relative_to(here).as_posix().startswith(LONG)

    items.sort(key=is_short)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A home of this test's own."""
    settings = Settings(home=tmp_path / "home")
    settings.prepare()
    return settings


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    """SQLite in the home of ``settings``."""
    with sqlite_database(settings.sqlite_path) as database:
        yield database


@pytest.fixture(params=["sqlite", "postgresql"])
def any_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """The same test on both databases that Stillroom runs on."""
    opened = (
        sqlite_database(tmp_path / "any.db") if request.param == "sqlite" else postgres_database()
    )
    with opened as database:
        yield database
