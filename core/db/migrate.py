"""Brings a database to the newest revision. The migrations travel inside the wheel."""

from pathlib import Path

from alembic import command
from alembic.config import Config

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
    """To the newest revision; does nothing to a database that is there already."""
    command.upgrade(alembic_config(database_url), "head")
