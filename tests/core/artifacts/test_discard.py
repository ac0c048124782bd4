"""What of a job's artifacts stays when a new attempt begins."""

from core.artifacts import service as artifacts
from core.artifacts.service import StoredFile
from core.config import Settings
from core.db.engine import Database
from tests.support.jobs import submit


def test_snapshots_stay_and_samples_from_the_step_on_are_made_again(
    any_database: Database, settings: Settings
) -> None:
    """A snapshot may be named by others: it stays although its step comes again."""
    job = submit(any_database, settings)
    with any_database.write() as session:
        for role, kind, suffix in (("sample", "image", "png"), ("snapshot", "lora", "peft")):
            for step in (5, 10, 30):
                artifacts.record(
                    session,
                    owner=job.owner,
                    job_id=job.id,
                    kind=kind,
                    role=role,
                    name="made",
                    format=suffix,
                    files=[StoredFile("made", 1, "0" * 64, f"{role}/{step}")],
                    facts={"step": step},
                )
        kept = artifacts.discard_made_by(session, job.id, from_step=10)
    told = [(artifact.role, artifact.facts["step"]) for artifact in kept]
    assert told == [("sample", 5), ("snapshot", 5), ("snapshot", 10), ("snapshot", 30)]
    with any_database.read() as session:
        rows, _ = artifacts.list_made_by(session, job.id)
        assert [row.id for row in rows] == [artifact.id for artifact in kept]
