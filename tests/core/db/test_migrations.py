"""The migrations make exactly the tables of the models, and can be taken back."""

from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, select, text

from core.config import Settings
from core.db import migrate
from core.db.engine import Database
from core.db.models import Base, Dataset, Image
from core.errors import WrongRevision
from tests.support import jobs as make
from tests.support.databases import sqlite_url


def test_the_migrated_database_is_what_the_models_say(any_database: Database) -> None:
    with any_database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_down_and_up_again(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path)
    migrate.upgrade(url)
    command.downgrade(migrate.alembic_config(url), "base")
    database = Database(url)
    assert inspect(database.engine).get_table_names() == ["alembic_version"]
    migrate.upgrade(url)
    assert set(inspect(database.engine).get_table_names()) > {"jobs", "events", "artifacts"}
    database.dispose()


def test_a_database_with_jobs_goes_down_and_up_and_keeps_them(
    any_database: Database, settings: Settings
) -> None:
    url = any_database.engine.url.render_as_string(hide_password=False)
    job = make.submit(any_database, settings)
    make.take(any_database, make.register(any_database, settings))
    any_database.dispose()  # PostgreSQL waits for whoever still reads
    command.downgrade(migrate.alembic_config(url), "0001")
    migrate.upgrade(url)
    assert make.history(any_database, job) == ["queued", "running"]
    kept = make.reread(any_database, job)
    assert (kept.state, kept.rung, kept.checkpoints) == ("running", 0, [])


def test_migrating_twice_changes_nothing(tmp_path: Path) -> None:
    migrate.upgrade(sqlite_url(tmp_path))
    before = (tmp_path / "stillroom.db").read_bytes()
    migrate.upgrade(sqlite_url(tmp_path))
    assert (tmp_path / "stillroom.db").read_bytes() == before


def test_sqlite_keeps_what_it_accepted(database: Database) -> None:
    with database.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


def test_a_reader_that_writes_loses_what_it_wrote(database: Database) -> None:
    from core.owners import service as owners

    with database.read() as session:
        owners.create(session, owner="ada", name="lost", scopes=["read"])
    with database.read() as session:
        assert owners.list_page(session) == ([], None)


def test_a_database_that_is_away_is_unavailable() -> None:
    from core.errors import Unavailable
    from core.owners import service as owners

    away = Database("postgresql+psycopg://nobody@127.0.0.1:1/none")
    with pytest.raises(Unavailable, match="does not answer"), away.read() as session:
        owners.list_page(session)
    away.dispose()


def test_a_process_asks_for_its_own_revision(any_database: Database) -> None:
    with any_database.write() as session:
        migrate.require(session, migrate.head())
        session.execute(text("UPDATE alembic_version SET version_num = '0004'"))
        with pytest.raises(WrongRevision, match="of revision 0004, this process of") as refused:
            migrate.require(session, migrate.head())
    assert (refused.value.status, refused.value.code) == (503, "wrong_revision")


def test_a_database_newer_than_the_code_is_left_alone(any_database: Database) -> None:
    url = any_database.engine.url.render_as_string(hide_password=False)
    with any_database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(WrongRevision, match="this version does not know"):
        migrate.upgrade(url)
    with any_database.read() as session:
        assert session.scalar(text("SELECT version_num FROM alembic_version")) == "9999"


def test_jobs_of_before_are_in_lanes_as_new_ones_are(
    any_database: Database, settings: Settings
) -> None:
    url = any_database.engine.url.render_as_string(hide_password=False)
    waiting = make.submit(any_database, settings, priority=-2)
    any_database.dispose()
    command.downgrade(migrate.alembic_config(url), "0004")
    migrate.upgrade(url)
    assert make.reread(any_database, waiting).lane == waiting.lane
    worker = make.register(any_database, settings)
    assert make.take(any_database, worker).id == waiting.id
    assert make.submit(any_database, settings, priority=-2).lane == waiting.lane


def test_pictures_that_lie_elsewhere_go_with_what_knew_where(any_database: Database) -> None:
    url = any_database.engine.url.render_as_string(hide_password=False)
    about = {"filename": "x", "width": 1, "height": 1, "bytes": 1, "sha256": "0" * 64}
    with any_database.write() as session:
        for name, folder, where in (
            ("sent", None, {"store_key": "key"}),
            ("imported", "/data", {"path": "x.png", "offset": 0}),
        ):
            session.add(Dataset(id=name, owner="ada", name=name, kind="instance", folder=folder))
            session.flush()
            session.add(Image(id=name, dataset_id=name, **about, **where))
    any_database.dispose()
    command.downgrade(migrate.alembic_config(url), "0013")
    migrate.upgrade(url)
    with any_database.read() as session:
        assert list(session.scalars(select(Dataset.id))) == ["sent"]
        assert session.get_one(Image, "sent").store_key == "key"
