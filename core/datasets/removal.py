"""How a dataset goes, or a picture of it, with all that was made of it on the way to a result.

What jobs made of it for good, their artifacts, stays until those or their jobs are deleted.
"""

import time
from datetime import UTC, datetime, timedelta
from itertools import chain

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from core import crash
from core.artifacts import deletions, needs
from core.datasets import pixels, service
from core.datasets.service import AT_ONCE, NOBODY
from core.db.engine import Database
from core.db.models import Dataset, Image, Job, JobInput, now

ABANDONED = timedelta(days=1)
"""Without a new picture for so long, whoever filled it has died: the slowest mount gives some."""
_PAUSE_SECONDS = 0.02
"""Between two parts: who waits for SQLite's lock looks now and then, and would find it taken."""
_LONG_AGO = datetime.fromtimestamp(0, UTC)
"""When what is deleted was last filled, so that nobody waits for more."""


def remove_image(session: Session, owner: str, dataset_id: str, image_id: str) -> None:
    """Takes its row away, and plans that its file goes.

    Raises:
        DatasetFrozen: a job learns from the dataset.
        InUse: a drawing that has not ended begins with the picture.
    """
    dataset = service.get_changeable(session, owner, dataset_id)
    image = service.get_image(session, dataset, image_id)
    drawings = (
        job
        for job in needs.of(session, "dataset", [dataset.id])
        if (job.spec.get("image") or {}).get("image") == image_id
    )
    needs.refuse(f"image {image_id}", drawings)
    session.delete(image)
    deletions.plan(session, pixels.stored_at(image))


def remove(session: Session, owner: str, dataset_id: str) -> None:
    """Takes it from its owner, and plans that its pictures go and what ended jobs saved on the way.
    What was imported stays where it lies. Call ``sweep`` after the commit: there may be any number
    of rows, and nobody else could write while they went.

    Raises:
        InUse: a job that has not ended needs it.
    """
    dataset = service.lock(session, owner, dataset_id)
    needs.refuse(f"dataset {dataset.id}", needs.of(session, "dataset", [dataset.id]))
    _drop_checkpoints(session, dataset)
    dataset.owner, dataset.created_at = NOBODY, _LONG_AGO
    deletions.plan(session, f"datasets/{dataset.id}/")


def sweep(database: Database) -> None:
    """Takes away what was deleted, and what was left by those who died while they imported."""
    with database.read() as session:
        old = select(Dataset.id).where(
            Dataset.owner == NOBODY, Dataset.created_at < now() - ABANDONED
        )
        ids = session.scalars(old).all()
    for dataset_id in ids:
        discard(database, dataset_id)


def discard(database: Database, dataset_id: str) -> None:
    """Takes away the rows of one that is nobody's, in short transactions: others write in between.
    Two at a time do the same, and that is harmless."""
    part = select(Image.id).where(Image.dataset_id == dataset_id).limit(AT_ONCE)
    while True:
        with database.write() as session:
            ids = session.scalars(part).all()
            if not ids:
                session.execute(delete(Dataset).where(Dataset.id == dataset_id))
                return
            session.execute(delete(Image).where(Image.id.in_(ids)))
        time.sleep(_PAUSE_SECONDS)
        crash.point("retention: a part of a dataset gone")


def _drop_checkpoints(session: Session, dataset: Dataset) -> None:
    """Nobody can go on from them without the pictures."""
    using = select(JobInput.job_id).where(
        JobInput.kind == "dataset", JobInput.input_id == dataset.id
    )
    jobs = select(Job).where(Job.id.in_(using)).order_by(Job.id)
    for job in session.scalars(jobs.with_for_update()):
        saved = chain.from_iterable(each["files"] for each in job.checkpoints)
        deletions.plan_files(session, saved)
        job.checkpoints = []
