"""What a report costs, however many pictures there are."""

from typing import Any

from sqlalchemy import event

from core.datasets import service
from core.datasets.report import summaries
from core.db.engine import Database
from core.db.models import Image
from core.ids import new_id


def test_duplicates_are_looked_up_and_not_looked_for(database: Database) -> None:
    """Each picture among the earlier ones with its pixels: a scan of all earlier ones is quadratic,
    which 100,000 imported pictures made minutes of."""
    asked: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        asked.append((statement, parameters))

    with database.write() as session:
        dataset = service.create(session, "ann", name="dogs", kind="instance")
        for number, pixels in enumerate(("a", "b", "a", None, None)):
            image_id = new_id("img")
            session.add(
                Image(
                    id=image_id,
                    dataset_id=dataset.id,
                    filename=f"{number}.png",
                    width=600,
                    height=600,
                    bytes=1,
                    sha256=str(number),
                    stored_sha256=pixels,
                    store_key=image_id,
                )
            )
        session.flush()
        event.listen(database.engine, "before_cursor_execute", note)
        report = summaries(session, [dataset])[dataset.id].report
        event.remove(database.engine, "before_cursor_execute", note)
        assert [each.code for each in report.suggestions] == ["duplicate_pictures"]
        plans = [
            row[3]
            for statement, parameters in asked
            if "EXISTS" in statement
            for row in session.connection().exec_driver_sql(
                f"EXPLAIN QUERY PLAN {statement}", parameters
            )
        ]
    looked_up = "(dataset_id=? AND stored_sha256=? AND id<?)"
    assert sum(looked_up in plan for plan in plans) == 2, plans
    assert not any(plan.endswith("(dataset_id=? AND id<?)") for plan in plans), plans
