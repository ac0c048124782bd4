"""How a dataset goes, or a picture of it, with all that was made of it on the way to a result.

What jobs made of it for good, their artifacts, stays until those or their jobs are deleted.
"""

from itertools import chain

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from core.artifacts import deletions, needs
from core.datasets import pixels, service
from core.db.models import Dataset, Image, Job, JobInput


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
    """Takes its rows away, and plans that its pictures go and what ended jobs saved on the way.
    What was imported stays where it lies.

    Raises:
        InUse: a job that has not ended needs it.
    """
    dataset = service.lock(session, owner, dataset_id)
    needs.refuse(f"dataset {dataset.id}", needs.of(session, "dataset", [dataset.id]))
    _drop_checkpoints(session, dataset)
    session.execute(delete(Image).where(Image.dataset_id == dataset.id))
    session.delete(dataset)
    deletions.plan(session, f"datasets/{dataset.id}/")


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
