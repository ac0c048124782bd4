"""What stands between a dataset and a good result: problems forbid, suggestions advise."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core.db.models import Dataset, Image

SHOWN_IMAGES = 100
"""Ids listed with a problem; its sentence has the full number."""
FEW_PICTURES = 3
"""DreamBooth was shown to work from three to five pictures. arXiv:2208.12242."""
SMALL_SIDE_PX = 512


@dataclass(frozen=True)
class Finding:
    code: str
    detail: str
    images: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Report:
    problems: list[Finding]
    suggestions: list[Finding]

    @property
    def ready(self) -> bool:
        return not self.problems


@dataclass(frozen=True)
class Summary:
    """A dataset's content in numbers. ``bytes`` as sent."""

    images: int
    bytes: int
    report: Report


@dataclass(frozen=True)
class _Counts:
    images: int = 0
    bytes: int = 0
    uncaptioned: int = 0
    small: int = 0


def summaries(session: Session, datasets: Sequence[Dataset]) -> dict[str, Summary]:
    """Of all ``datasets`` by id, in two queries however many there are."""
    ids = [dataset.id for dataset in datasets]
    counts = _counts(session, ids)
    captioned = [dataset.id for dataset in datasets if dataset.kind == "captioned"]
    uncaptioned = _uncaptioned(session, [id for id in captioned if counts[id].uncaptioned])
    return {
        dataset.id: _summary(dataset, counts[dataset.id], uncaptioned.get(dataset.id, []))
        for dataset in datasets
    }


def _counts(session: Session, ids: Sequence[str]) -> dict[str, _Counts]:
    rows = session.execute(
        select(
            Image.dataset_id,
            func.count(),
            func.sum(Image.bytes),
            func.count().filter(Image.caption.is_(None)),
            func.count().filter(
                (Image.width < SMALL_SIDE_PX) | (Image.height < SMALL_SIDE_PX),
            ),
        )
        .where(Image.dataset_id.in_(ids))
        .group_by(Image.dataset_id)
    )
    found = {id: _Counts(images, int(size), bare, small) for id, images, size, bare, small in rows}
    return {id: found.get(id, _Counts()) for id in ids}


def _uncaptioned(session: Session, ids: Sequence[str]) -> dict[str, list[str]]:
    """The first pictures without a caption of each dataset."""
    if not ids:
        return {}
    place = func.row_number().over(partition_by=Image.dataset_id, order_by=Image.id)
    ranked = (
        select(Image.dataset_id, Image.id, place.label("place"))
        .where(Image.dataset_id.in_(ids), Image.caption.is_(None))
        .subquery()
    )
    found: dict[str, list[str]] = {}
    for dataset_id, image_id, _ in session.execute(
        select(ranked).where(ranked.c.place <= SHOWN_IMAGES).order_by(ranked.c.id)
    ):
        found.setdefault(dataset_id, []).append(image_id)
    return found


def _summary(dataset: Dataset, counts: _Counts, uncaptioned: list[str]) -> Summary:
    report = Report(_problems(dataset, counts, uncaptioned), _suggestions(dataset, counts))
    return Summary(counts.images, counts.bytes, report)


def _problems(dataset: Dataset, counts: _Counts, uncaptioned: list[str]) -> list[Finding]:
    problems = []
    if not counts.images:
        problems.append(Finding("dataset_empty", "There is no picture yet: upload some."))
    if dataset.kind == "captioned" and counts.uncaptioned:
        problems.append(
            Finding(
                "dataset_not_captioned",
                f"{counts.uncaptioned} of {counts.images} pictures have no caption.",
                uncaptioned,
            )
        )
    return problems


def _suggestions(dataset: Dataset, counts: _Counts) -> list[Finding]:
    suggestions = []
    if dataset.kind == "instance" and 0 < counts.images < FEW_PICTURES:
        suggestions.append(
            Finding(
                "few_pictures",
                f"{counts.images} of {FEW_PICTURES} to 5 pictures: more views of the subject help.",
            )
        )
    if counts.small:
        suggestions.append(
            Finding(
                "small_pictures",
                f"{counts.small} pictures have a side below {SMALL_SIDE_PX} pixels: a base of "
                "1024 pixels learns them blurred.",
            )
        )
    return suggestions
