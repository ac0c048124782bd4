"""Brings a database to the newest revision. The migrations travel inside the wheel."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import text
from sqlalchemy.orm import Session

from core.errors import WrongRevision

_HERE = Path(__file__).resolve().parent


def migrations_path() -> Path:
    """``core/db/migrations`` when installed, ``migrations`` beside ``core`` in a checkout."""
    installed = _HERE / "migrations"
    return installed if installed.is_dir() else _HERE.parents[1] / "migrations"


def alembic_config(database_url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations_path()).replace("%", "%%"))
    config.set_main_option("sqlalchemy.url", database_url.replace("%", "%%"))
    return config


def upgrade(database_url: str) -> None:
    """To the newest revision; does nothing to a database that is there already.

    Raises:
        WrongRevision: it is of a later version of Stillroom.
    """
    config = alembic_config(database_url)
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        if "locate revision" not in str(error):
            raise
        raise _wrong("a revision that this version does not know", head()) from error


def head() -> str:
    """The revision that this code is written for."""
    revision = ScriptDirectory.from_config(alembic_config("sqlite://")).get_current_head()
    assert revision is not None, "there are migrations"
    return revision


def require(session: Session, revision: str) -> None:
    """Raises WrongRevision where the database is of another: its rows may mean something else."""
    found = session.scalar(text("SELECT version_num FROM alembic_version"))
    if found != revision:
        raise _wrong(f"revision {found}", revision)


def _wrong(found: str, revision: str) -> WrongRevision:
    return WrongRevision(
        f"The database is of {found}, this process of revision {revision}: end it, and start "
        "the version of Stillroom that the others run.",
        retry_after_seconds=30,
    )
