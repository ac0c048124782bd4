"""What is odd about pictures that were taken: told beside each, and counted in the report."""

from collections.abc import Iterator, Sequence

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session, aliased

from core.db.models import Dataset, Image
from core.pictures.refusal import Flaw

SMALL_SIDE_PX = 512
MAX_RATIO = 1.5
"""Of the longer side to the shorter: above it a centre crop drops more than a third."""
_Earlier = aliased(Image)

IS_UNCAPTIONED: ColumnElement[bool] = Image.caption.is_(None)
IS_TURNED: ColumnElement[bool] = Image.turned.is_(True)
IS_SMALL: ColumnElement[bool] = (Image.width < SMALL_SIDE_PX) | (Image.height < SMALL_SIDE_PX)
IS_LONG: ColumnElement[bool] = (Image.width > MAX_RATIO * Image.height) | (
    Image.height > MAX_RATIO * Image.width
)
IS_DUPLICATE: ColumnElement[bool] = (
    select(_Earlier.id)
    .where(
        _Earlier.dataset_id == Image.dataset_id,
        _Earlier.stored_sha256 == Image.stored_sha256,
        _Earlier.id < Image.id,
    )
    .correlate(Image)
    .exists()
)


def flaws_of_files(
    session: Session, dataset: Dataset, images: Sequence[Image]
) -> dict[str, list[Flaw]]:
    """What their files were like, by id. ``images`` are of that dataset."""
    firsts = _firsts(session, dataset, images)
    return {image.id: [*_turned(image), *_duplicate(image, firsts)] for image in images}


def flaws_of(session: Session, dataset: Dataset, images: Sequence[Image]) -> dict[str, list[Flaw]]:
    """The same, and what they are like as something to learn from."""
    files = flaws_of_files(session, dataset, images)
    return {
        image.id: [*files[image.id], *_small(image), *_uncaptioned(image, dataset)]
        for image in images
    }


def _firsts(session: Session, dataset: Dataset, images: Sequence[Image]) -> dict[str, str]:
    """The first picture of the dataset with the same pixels, by the hash of those."""
    hashes = {image.stored_sha256 for image in images if image.stored_sha256}
    rows = session.execute(
        select(Image.stored_sha256, func.min(Image.id))
        .where(Image.dataset_id == dataset.id, Image.stored_sha256.in_(hashes))
        .group_by(Image.stored_sha256)
    )
    return {str(sha256): id for sha256, id in rows}


def _turned(image: Image) -> Iterator[Flaw]:
    if image.turned:
        yield Flaw(
            "turned",
            f"{image.filename} was turned upright, as its camera said. If it lies on its side now, "
            "save it upright and send that.",
        )


def _duplicate(image: Image, firsts: dict[str, str]) -> Iterator[Flaw]:
    first = firsts.get(image.stored_sha256 or "", image.id)
    if first != image.id:
        yield Flaw(
            "duplicate",
            f"{image.filename} has the same pixels as {first}, and counts twice in a training: "
            "delete one of them.",
        )


def _small(image: Image) -> Iterator[Flaw]:
    if min(image.width, image.height) < SMALL_SIDE_PX:
        yield Flaw(
            "small_picture",
            f"{image.filename} has {image.width} x {image.height} pixels: a base of 1024 learns a "
            f"side below {SMALL_SIDE_PX} blurred. Send a larger one where there is one.",
        )


def _uncaptioned(image: Image, dataset: Dataset) -> Iterator[Flaw]:
    if dataset.kind == "captioned" and image.caption is None:
        yield Flaw(
            "no_caption",
            f"{image.filename} has no caption: send a .txt file with its name, or a line of "
            "metadata.jsonl.",
        )
