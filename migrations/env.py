"""Alembic's entry: runs the revisions on the database that the caller named."""

from alembic import context
from sqlalchemy import text

from core.db.engine import Database
from core.db.models import Base

LOCK = 0x5711  # any constant: two servers starting at once migrate one after the other


def run() -> None:
    url = context.config.get_main_option("sqlalchemy.url")
    assert url, "core.db.migrate names the database"
    database = Database(url)
    try:
        _migrate(database)
    finally:
        database.dispose()


def _migrate(database: Database) -> None:
    with database.write() as session:
        connection = session.connection()
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        context.configure(
            connection=connection, target_metadata=Base.metadata, render_as_batch=True
        )
        context.run_migrations()


run()
