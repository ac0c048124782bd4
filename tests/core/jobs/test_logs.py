"""A job's log is the end of what its runner said."""

from core.config import Settings
from core.db.engine import Database
from core.jobs import logs
from tests.support.jobs import submit


def test_what_is_kept_later_takes_the_place_of_what_was(
    any_database: Database, settings: Settings
) -> None:
    job = submit(any_database, settings)
    with any_database.read() as session:
        assert logs.tail(session, job.id, 10) == []
    for lines in (["one"], ["one", "two", "three \u2013 \u0000"]):
        with any_database.write() as session:
            logs.keep(session, job.id, lines)
    with any_database.read() as session:
        assert logs.tail(session, job.id, 10) == ["one", "two", "three \u2013 \u0000"]
        assert logs.tail(session, job.id, 2) == ["two", "three \u2013 \u0000"]
