"""What a job names is found in the store when its attempt begins."""

import pytest

from core.config import Settings
from core.db.engine import Database
from core.db.models import Artifact, Job
from core.errors import JobFailure
from core.retention import forget
from tests.core.jobs.test_service import fine_tune, make_dataset, make_lora
from tests.support.jobs import SPEC, register, submit, succeed, take
from worker import inputs


def make_by_job(database: Database, settings: Settings) -> tuple[Job, str]:
    """A fine-tune that has succeeded, and the LoRA it made."""
    spec = fine_tune(make_dataset(database, 1))
    submit(database, settings, kind="fine_tune", spec=spec)
    job = take(database, register(database, settings))
    lora = make_lora(database, "nano-ssd-1b")
    with database.write() as session:
        made = session.get_one(Artifact, lora)
        made.job_id, made.files = job.id, [made.files[0] | {"store_key": "of the job"}]
    return succeed(database, job, lora=lora), lora


def test_a_job_stands_for_the_lora_that_it_made(any_database: Database, settings: Settings) -> None:
    job, lora = make_by_job(any_database, settings)
    named = [{"job": job.id, "weight": 0.5}, {"artifact": lora}]
    drawing = submit(any_database, settings, spec=SPEC | {"loras": named})
    with any_database.read() as session:
        needed = inputs.look_up(session, drawing)
    assert needed.lora_keys == [("of the job", 0.5), ("of the job", 1.0)]


def test_a_job_that_is_gone_takes_its_lora_along(
    any_database: Database, settings: Settings
) -> None:
    job, _ = make_by_job(any_database, settings)
    drawing = submit(any_database, settings, spec=SPEC | {"loras": [{"job": job.id}]})
    with any_database.write() as session:
        session.get_one(Job, drawing.id).state = "failed"
        assert forget(session, job.id)
    with any_database.read() as session, pytest.raises(JobFailure, match=job.id) as gone:
        inputs.look_up(session, drawing)
    assert gone.value.code == "input_gone"
