"""The series of a training, as its progress rows tell it."""

from typing import Any

from core.config import Settings
from core.db.engine import Database
from core.db.models import Job
from core.jobs import metrics
from core.jobs.attempt import Attempt
from core.jobs.metrics import Metrics
from tests.support.jobs import register, submit, take


def tell(database: Database, job: Job, step: int, **told: Any) -> None:
    with database.write() as session:
        Attempt(job.id, job.attempt).tell(session, "progress", {"step": step, **told})


def read(database: Database, job: Job) -> Metrics:
    with database.read() as session:
        return metrics.of(session, job.id)


def test_series_leave_out_what_was_taken_in_vain(
    any_database: Database, settings: Settings
) -> None:
    worker = register(any_database, settings)
    submit(any_database, settings)
    job = take(any_database, worker)
    assert read(any_database, job) == Metrics()
    tell(any_database, job, 0)  # caching: no loss yet
    for step, loss in ((1, 0.9), (2, 0.8), (3, 0.7)):
        tell(any_database, job, step + 4, loss=loss, loss_step=step, learning_rate=1e-4)
    with any_database.write() as session:
        Attempt(job.id, 1).give_back(session, "worker_lost")
    job = take(any_database, worker)
    tell(any_database, job, 0)  # it loads the base again
    assert read(any_database, job).step == [1, 2, 3]
    for step, loss in ((2, 0.81), (3, 0.71)):  # from the checkpoint of step 1
        figures = {"terms": {"task": loss / 2}, "seconds_per_step": 0.5}
        tell(any_database, job, step, loss=loss, loss_step=step, **figures)
    told = read(any_database, job)
    assert (told.step, told.loss) == ([1, 2, 3], [0.9, 0.81, 0.71])
    assert told.learning_rate == [1e-4, None, None]
    assert told.seconds_per_step == [None, 0.5, 0.5]
    assert told.terms == {"task": [None, 0.405, 0.355]}
