"""What a job names is found in the store when its attempt begins."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.artifacts.store import Store
from core.config import Settings
from core.db.engine import Database
from core.db.models import Artifact, Job
from core.errors import JobFailure
from core.jobs.attempt import Attempt
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


def save(store: Store, step: int) -> dict[str, Any]:
    """A checkpoint of one file, as a job's row names it."""
    key, content = f"saved/{step}", f"tensors of step {step}".encode()
    store.put_bytes(key, content)
    digest = hashlib.sha256(content).hexdigest()
    file = {"path": "tensors", "bytes": len(content), "sha256": digest, "store_key": key}
    return {"step": step, "files": [file]}


def damage(store: Store, key: str) -> None:
    store.put_bytes(key, b"tensors of step zz")


@pytest.mark.parametrize("harm", [damage, Store.delete])
def test_a_checkpoint_that_is_not_whole_is_passed_over_for_the_one_before(
    harm: Callable[[Store, str], None], database: Database, settings: Settings, tmp_path: Path
) -> None:
    store = Store.of(settings)
    store.put_bytes("0", b"a picture")
    submit(database, settings, kind="fine_tune", spec=fine_tune(make_dataset(database, 1)))
    job = take(database, register(database, settings))
    saved = [save(store, 20), save(store, 10)]
    with database.write() as session:
        job = Attempt(job.id, 1).tell(session, "log", {"message": "saved"}, checkpoints=saved)
        needed = inputs.look_up(session, job)
    harm(store, "saved/20")
    run = inputs.lay_out(needed, job, store, settings, tmp_path / "room")
    assert run.checkpoint is not None
    kept = Path(run.checkpoint)
    assert kept.name == "step-00000010"
    assert (kept / "tensors").read_bytes() == b"tensors of step 10"
    assert list(kept.parent.iterdir()) == [kept]
    harm(store, "saved/10")
    again = inputs.lay_out(needed, job, store, settings, tmp_path / "another")
    assert again.checkpoint is None
