"""`stillroom doctor` beside a server, and beside what is broken."""

from pathlib import Path

import pytest

from api.doctor import house
from core.config import Settings
from tests.api.cli.conftest import Run
from tests.api.live import serving_api


def rows(out: str) -> dict[str, tuple[str, str]]:
    """What was found last, by what it was found of."""
    split = (line.split("\t") for line in out.splitlines())
    return {about: (mark, says) for mark, about, says in split}


def test_a_home_with_a_server(on_server: Run) -> None:
    code, out, _ = on_server("doctor")
    found = rows(out)
    assert code == 1, "no worker is ready"
    assert found["database"][0] == found["store"][0] == found["python"][0] == "ok"
    assert found["models"][0] == "note"
    mark, says = found["server"]
    assert (mark, "No worker is ready" in says) == ("BAD", True)


def test_a_home_that_is_not_there_yet(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("doctor", "--home", str(tmp_path / "none"))
    assert code == 0
    assert "`stillroom serve` begins it" in rows(out)["home"][1]
    assert not (tmp_path / "none").exists()


def test_a_database_of_another_revision(tmp_path: Path) -> None:
    with serving_api(tmp_path / "home") as live:
        with live.app.state.database.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'another'")
        found = house.database(live.settings)
    assert (found.verdict, "another" in found.says) == ("bad", True)


@pytest.mark.parametrize("address", ["redis://127.0.0.1:1/0", "redis://:secret@127.0.0.1:1/0"])
def test_a_broker_that_is_away(address: str) -> None:
    found = house.broker(Settings(broker_url=address))
    assert (found.verdict, "does not answer" in found.says) == ("note", True)
    assert "secret" not in found.says


def test_a_database_that_is_away() -> None:
    found = house.database(Settings(database_url="postgresql+psycopg://a:secret@127.0.0.1:1/b"))
    assert (found.verdict, "does not answer" in found.says) == ("bad", True)
    assert "secret" not in found.says


@pytest.mark.parametrize("address", ["postgres://a:secret@127.0.0.1/b", "secret", "mssql://secret"])
def test_a_database_address_that_is_none(address: str) -> None:
    found = house.database(Settings(database_url=address))
    assert (found.verdict, "STILLROOM_DATABASE_URL" in found.says) == ("bad", True)
    assert "secret" not in found.says


@pytest.mark.parametrize("address", ["localhost:6379", "secret", "redis://:secret@127.0.0.1:port"])
def test_a_broker_address_that_is_none(address: str) -> None:
    found = house.broker(Settings(broker_url=address))
    assert (found.verdict, "STILLROOM_BROKER_URL" in found.says) == ("bad", True)
    assert "secret" not in found.says
