"""What stands between a dataset and a good result: problems forbid, suggestions advise."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from core.datasets import inspection
from core.db.models import Dataset, Image

SHOWN_IMAGES = 100
"""Ids listed with a problem; its sentence has the full number."""
FEW_PICTURES = 3
"""DreamBooth was shown to work from three to five pictures. arXiv:2208.12242."""
_UNCAPTIONED = "dataset_not_captioned"
_ODD: dict[str, tuple[ColumnElement[bool], str]] = {
    _UNCAPTIONED: (
        inspection.IS_UNCAPTIONED,
        "have no caption: send .txt files with their names, or a metadata.jsonl.",
    ),
    "small_pictures": (
        inspection.IS_SMALL,
        f"have a side below {inspection.SMALL_SIDE_PX} pixels: a base of 1024 pixels learns them "
        "blurred. Send larger ones where there are any.",
    ),
    "duplicate_pictures": (
        inspection.IS_DUPLICATE,
        "have the same pixels as another, and count twice in a training: delete them.",
    ),
    "turned_pictures": (
        inspection.IS_TURNED,
        "were turned upright, as their camera said: look whether they are.",
    ),
    "mixed_sizes": (
        inspection.IS_LONG,
        f"have a side more than {inspection.MAX_RATIO:g} times the other. A training learns the "
        "middle square of each: crop those whose subject is elsewhere.",
    ),
}
"""By code: which pictures, and what of them."""


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
    """``odd`` by code."""

    images: int = 0
    bytes: int = 0
    odd: dict[str, int] = field(default_factory=dict)


_Ids = dict[str, list[str]]


def summaries(session: Session, datasets: Sequence[Dataset]) -> dict[str, Summary]:
    """Of all ``datasets`` by id, in six queries at most, however many there are."""
    counts = _counts(session, [dataset.id for dataset in datasets])
    found = {}
    for code, (condition, _) in _ODD.items():
        concerned = [each.id for each in datasets if _concerns(code, each, counts[each.id])]
        found[code] = _first_images(session, concerned, condition)
    return {dataset.id: _summary(dataset, counts[dataset.id], found) for dataset in datasets}


def _concerns(code: str, dataset: Dataset, counts: _Counts) -> bool:
    captions_matter = dataset.kind == "captioned"
    return bool(counts.odd.get(code)) and (code != _UNCAPTIONED or captions_matter)


def _counts(session: Session, ids: Sequence[str]) -> dict[str, _Counts]:
    rows = session.execute(
        select(
            Image.dataset_id,
            func.count(),
            func.sum(Image.bytes),
            *(func.count().filter(condition) for condition, _ in _ODD.values()),
        )
        .where(Image.dataset_id.in_(ids))
        .group_by(Image.dataset_id)
    )
    found = {
        id: _Counts(images, int(size), dict(zip(_ODD, odd, strict=True)))
        for id, images, size, *odd in rows
    }
    return {id: found.get(id, _Counts()) for id in ids}


def _first_images(session: Session, ids: Sequence[str], condition: ColumnElement[bool]) -> _Ids:
    """The first pictures of each dataset for which ``condition`` holds."""
    if not ids:
        return {}
    place = func.row_number().over(partition_by=Image.dataset_id, order_by=Image.id)
    ranked = (
        select(Image.dataset_id, Image.id, place.label("place"))
        .where(Image.dataset_id.in_(ids), condition)
        .subquery()
    )
    found: _Ids = {}
    for dataset_id, image_id, _ in session.execute(
        select(ranked).where(ranked.c.place <= SHOWN_IMAGES).order_by(ranked.c.id)
    ):
        found.setdefault(dataset_id, []).append(image_id)
    return found


def _summary(dataset: Dataset, counts: _Counts, images: dict[str, _Ids]) -> Summary:
    odd = [
        Finding(code, f"{counts.odd[code]} of {counts.images} pictures {what}", found[dataset.id])
        for code, (_, what) in _ODD.items()
        if dataset.id in (found := images[code])
    ]
    problems = [*_empty(counts), *(each for each in odd if each.code == _UNCAPTIONED)]
    suggestions = [*_few(dataset, counts), *(each for each in odd if each.code != _UNCAPTIONED)]
    return Summary(counts.images, counts.bytes, Report(problems, suggestions))


def _empty(counts: _Counts) -> list[Finding]:
    if counts.images:
        return []
    return [Finding("dataset_empty", "There is no picture yet: upload some.")]


def _few(dataset: Dataset, counts: _Counts) -> list[Finding]:
    if dataset.kind != "instance" or not 0 < counts.images < FEW_PICTURES:
        return []
    detail = f"{counts.images} of {FEW_PICTURES} to 5 pictures: more views of the subject help."
    return [Finding("few_pictures", detail)]
