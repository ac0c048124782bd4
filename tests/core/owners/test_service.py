"""Keys."""

import stat
from pathlib import Path

import pytest

from core.db.engine import Database
from core.db.models import Key
from core.errors import NotFound, Unauthorized
from core.owners import service


def test_a_key_opens_as_its_owner_and_is_kept_as_a_hash(any_database: Database) -> None:
    with any_database.write() as session:
        key, token = service.create(session, owner="ann", name="laptop", scopes=["read"])
    with any_database.read() as session:
        caller = service.authenticate(session, token)
        row = session.get_one(Key, key.id)
    assert (caller.owner, caller.key_id) == ("ann", key.id)
    assert caller.scopes == {"read"}
    assert token not in str(vars(row))


@pytest.mark.parametrize("token", ["", "stillroom_x", "\ud800", "x" * 10_000])
def test_any_other_opens_nothing(token: str, database: Database) -> None:
    with database.read() as session, pytest.raises(Unauthorized):
        service.authenticate(session, token)


def test_a_deleted_key_opens_nothing(database: Database) -> None:
    with database.write() as session:
        key, token = service.create(session, owner="ann", name="laptop", scopes=["read"])
    with database.write() as session:
        service.delete(session, key.id)
    with database.read() as session, pytest.raises(Unauthorized):
        service.authenticate(session, token)
    with database.write() as session, pytest.raises(NotFound):
        service.delete(session, key.id)


def ensure(database: Database, path: Path) -> str:
    with database.write() as session:
        service.ensure_admin_key(session, path)
    return path.read_text().strip()


def test_the_admin_key_is_made_once_and_for_this_user_alone(
    database: Database, tmp_path: Path
) -> None:
    path = tmp_path / "admin.key"
    token = ensure(database, path)
    assert ensure(database, path) == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with database.read() as session:
        assert service.authenticate(session, token).scopes == {"read", "write", "admin"}
        assert len(service.list_page(session)[0]) == 1


def test_a_file_without_its_row_becomes_valid(database: Database, tmp_path: Path) -> None:
    path = tmp_path / "admin.key"
    path.write_text("stillroom_from_a_backup\n")
    assert ensure(database, path) == "stillroom_from_a_backup"
    with database.read() as session:
        assert service.authenticate(session, "stillroom_from_a_backup").owner == "admin"


def test_an_empty_file_is_no_key(database: Database, tmp_path: Path) -> None:
    path = tmp_path / "admin.key"
    path.write_text("\n")
    assert len(ensure(database, path)) > 40
