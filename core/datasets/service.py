"""Datasets: pictures of one owner, open until a job first uses them; imported ones never are."""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Literal

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from core.datasets.report import Summary, summaries
from core.db.engine import Database
from core.db.models import Dataset, Image
from core.db.pages import newest_first
from core.errors import DatasetEmpty, DatasetFrozen, DatasetNotCaptioned, NotFound
from core.ids import new_id

Kind = Literal["instance", "captioned"]
NOBODY = ""
"""No key has this owner: of datasets that are being filled, or deleted."""
AT_ONCE = 1_000
"""Rows held in memory, of a dataset that may have any number."""


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
        DatasetFrozen: a job uses it, or it was imported.
    """
    dataset = lock(session, owner, dataset_id)
    if dataset.sha256 is not None:
        if dataset.folder is not None:
            raise DatasetFrozen(
                f"Dataset {dataset_id} was imported, so it stays as it is: change the files where "
                "they lie and import them again."
            )
        raise DatasetFrozen(
            f"A job uses dataset {dataset_id}, so it stays as it is. To go on from it, make a new "
            f"one with POST /v1/datasets and send it the pictures, which "
            f"GET /v1/datasets/{dataset_id}/images lists."
        )
    return dataset


def hold(session: Session, dataset_ids: Collection[str]) -> None:
    """Keeps them until this transaction ends: whoever deletes one finds the job that is being made.

    Raises NotFound when one is gone already.
    """
    rows = select(Dataset.id).where(Dataset.id.in_(dataset_ids), Dataset.owner != NOBODY)
    held = session.scalars(
        rows.order_by(Dataset.id).with_for_update(read=True, key_share=True)
    ).all()
    if gone := {*dataset_ids} - {*held}:
        raise NotFound(f"There is no dataset {min(gone)!r}.")


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


def each_image(database: Database, dataset_id: str) -> Iterator[Image]:
    """The same of a frozen dataset, however many there are: read in parts, a short look each."""
    last = ""
    while True:
        of_it = select(Image).where(Image.dataset_id == dataset_id, Image.id > last)
        with database.read() as session:
            part = session.scalars(of_it.order_by(Image.id).limit(AT_ONCE)).all()
        if not part:
            return
        yield from part
        last = part[-1].id


def list_images_page(
    session: Session, dataset: Dataset, *, cursor: str | None = None, limit: int = 50
) -> tuple[list[Image], str | None]:
    """Newest first. The cursor is the last id of the page before; None: that was all."""
    query = select(Image).where(Image.dataset_id == dataset.id)
    return newest_first(session, query, Image.id, cursor=cursor, limit=limit)


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
    dataset = lock(session, dataset.owner, dataset.id)
    if dataset.sha256 is None:
        dataset.sha256 = content_sha256(session, dataset.id)
        session.flush()
    return dataset.sha256


def lock(session: Session, owner: str, dataset_id: str) -> Dataset:
    """The dataset, as it stays until this transaction ends."""
    own = select(Dataset).where(Dataset.id == dataset_id, Dataset.owner == owner)
    dataset = session.scalar(own.with_for_update(), execution_options={"populate_existing": True})
    if dataset is None:
        raise NotFound(f"There is no dataset {dataset_id!r}.")
    return dataset


def content_sha256(session: Session, dataset_id: str) -> str:
    """Of what a job learns from: hashes of the pictures as sent, and their captions, one a line.

    By hash, which no two share: so the order in which they came is not part of it.
    """
    rows = select(Image.sha256, Image.caption).where(Image.dataset_id == dataset_id)
    digest = hashlib.sha256()
    found = session.execute(rows.order_by(Image.sha256).execution_options(yield_per=AT_ONCE))
    for number, (sha256, caption) in enumerate(found):
        line = json.dumps([sha256, caption])
        digest.update((f"\n{line}" if number else line).encode())
    return digest.hexdigest()
