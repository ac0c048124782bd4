"""Datasets: pictures of one owner, open until a job first uses them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Literal

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from core.datasets.report import Summary, summaries
from core.db.models import Dataset, Image
from core.db.pages import newest_first, oldest_first
from core.errors import DatasetEmpty, DatasetFrozen, DatasetNotCaptioned, NotFound
from core.ids import new_id

Kind = Literal["instance", "captioned"]


def create(session: Session, owner: str, *, name: str, kind: Kind) -> Dataset:
    dataset = Dataset(id=new_id("dst"), owner=owner, name=name, kind=kind)
    session.add(dataset)
    session.flush()
    return dataset


def get(session: Session, owner: str, dataset_id: str) -> Dataset:
    dataset = session.get(Dataset, dataset_id)
    if dataset is None or dataset.owner != owner:
        raise NotFound(f"There is no dataset {dataset_id!r}.")
    return dataset


def get_changeable(session: Session, owner: str, dataset_id: str) -> Dataset:
    """The dataset, held against being frozen until the transaction ends.

    Raises:
        DatasetFrozen: a job uses it.
    """
    dataset = get(session, owner, dataset_id)
    session.refresh(dataset, with_for_update=True)
    if dataset.sha256 is not None:
        raise DatasetFrozen(
            f"A job uses dataset {dataset_id}, so it stays as it is. To go on from it, make a new "
            f"one with POST /v1/datasets and send it the pictures, which "
            f"GET /v1/datasets/{dataset_id}/images lists."
        )
    return dataset


def list_page(
    session: Session, owner: str, *, cursor: str | None = None, limit: int = 50
) -> tuple[list[Dataset], str | None]:
    """Newest first."""
    query = select(Dataset).where(Dataset.owner == owner)
    return newest_first(session, query, Dataset.id, cursor=cursor, limit=limit)


def summary(session: Session, dataset: Dataset) -> Summary:
    return summaries(session, [dataset])[dataset.id]


def images_of(session: Session, dataset: Dataset) -> list[Image]:
    """All pictures, in the order they came."""
    query = select(Image).where(Image.dataset_id == dataset.id).order_by(Image.id)
    return list(session.scalars(query))


def list_images_page(
    session: Session, dataset: Dataset, *, cursor: str | None = None, limit: int = 50
) -> tuple[list[Image], str | None]:
    """In the order they came."""
    query = select(Image).where(Image.dataset_id == dataset.id)
    return oldest_first(session, query, Image.id, cursor=cursor, limit=limit)


def get_image(session: Session, dataset: Dataset, image_id: str) -> Image:
    image = session.get(Image, image_id)
    if image is None or image.dataset_id != dataset.id:
        raise NotFound(f"There is no image {image_id!r} in dataset {dataset.id}.")
    return image


def add_images(session: Session, images: Sequence[Image]) -> None:
    session.add_all(images)
    session.flush()


def set_captions(session: Session, captions: Mapping[str, str]) -> None:
    """``captions`` are texts by image id."""
    if captions:
        rows = [{"id": image_id, "caption": text} for image_id, text in captions.items()]
        session.execute(update(Image), rows)


def require_ready(session: Session, dataset: Dataset) -> int:
    """How many pictures there are to learn from. Raises DatasetEmpty when none."""
    images = session.scalar(select(func.count()).where(Image.dataset_id == dataset.id)) or 0
    if not images:
        raise DatasetEmpty(
            f"Dataset {dataset.id} holds no picture: upload some to "
            f"POST /v1/datasets/{dataset.id}/images first."
        )
    return images


def require_captions(session: Session, dataset: Dataset, *, other: str = "") -> None:
    """Raises DatasetNotCaptioned when a picture has none; ``other``: what else would do."""
    bare = session.scalar(
        select(func.count()).where(Image.dataset_id == dataset.id, Image.caption.is_(None))
    )
    if bare:
        raise DatasetNotCaptioned(
            f"Pictures of dataset {dataset.id} without a caption: {bare}. Send captions as .txt "
            f"files or a metadata.jsonl{other}."
        )


def freeze(session: Session, dataset: Dataset) -> str:
    """The hash of its content, which from now on cannot change. Freezing again is harmless."""
    session.refresh(dataset, with_for_update=True)
    if dataset.sha256 is None:
        dataset.sha256 = content_sha256(images_of(session, dataset))
        session.flush()
    return dataset.sha256


def content_sha256(images: Sequence[Image]) -> str:
    """Of what a job learns from: the pictures as sent and their captions, in no order."""
    lines = sorted(json.dumps([image.sha256, image.caption]) for image in images)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
