"""Datasets and their pictures, as clients send and see them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field, StringConstraints

from api.schemas.common import FlawRead, Name, Sent, storable
from core.datasets.captions import MAX_CHARACTERS as MAX_CAPTION_CHARACTERS
from core.datasets.intake import Item
from core.datasets.report import Finding, Summary
from core.db.models import Dataset, Image
from core.pictures.refusal import Flaw

Caption = Annotated[
    str, StringConstraints(max_length=MAX_CAPTION_CHARACTERS), AfterValidator(storable)
]


class FindingRead(BaseModel):
    code: str
    detail: str
    images: list[str]

    @classmethod
    def of(cls, finding: Finding) -> "FindingRead":
        return cls(code=finding.code, detail=finding.detail, images=finding.images)


class ReportRead(BaseModel):
    ready: bool
    problems: list[FindingRead]
    suggestions: list[FindingRead]


class DatasetCreate(Sent):
    name: Name
    kind: Literal["instance", "captioned"]


class DatasetRead(BaseModel):
    id: str
    name: str
    kind: Literal["instance", "captioned"]
    images: int
    bytes: int
    sha256: str | None = Field(
        description="Of its content. null until a job uses it; of an import, never."
    )
    frozen: bool
    report: ReportRead
    created_at: datetime

    @classmethod
    def of(cls, dataset: Dataset, summary: Summary) -> "DatasetRead":
        return cls(
            id=dataset.id,
            name=dataset.name,
            kind=dataset.kind,
            images=summary.images,
            bytes=summary.bytes,
            sha256=dataset.sha256,
            frozen=dataset.sha256 is not None,
            report=ReportRead(
                ready=summary.report.ready,
                problems=[FindingRead.of(each) for each in summary.report.problems],
                suggestions=[FindingRead.of(each) for each in summary.report.suggestions],
            ),
            created_at=dataset.created_at,
        )


class ImageRead(BaseModel):
    id: str
    filename: str
    width: int
    height: int
    bytes: int = Field(description="As sent.")
    sha256: str = Field(description="Of the bytes as sent.")
    caption: str | None
    problems: list[FlawRead]

    @classmethod
    def of(cls, image: Image, flaws: Sequence[Flaw]) -> "ImageRead":
        return cls(
            id=image.id,
            filename=image.filename,
            width=image.width,
            height=image.height,
            bytes=image.bytes,
            sha256=image.sha256,
            caption=image.caption,
            problems=[FlawRead.of(flaw) for flaw in flaws],
        )


class ImageChange(Sent):
    """What may be changed of a picture; what is left out stays."""

    caption: Caption | None = Field(None, description="null: none.")


class ItemRead(BaseModel):
    filename: str
    id: str | None
    kind: Literal["image", "caption", "metadata", "archive", "unknown"]
    problems: list[FlawRead]

    @classmethod
    def of(cls, item: Item) -> "ItemRead":
        return cls(
            filename=item.filename,
            id=item.id,
            kind=item.kind,
            problems=[FlawRead.of(flaw) for flaw in item.flaws],
        )


class UploadRead(BaseModel):
    items: list[ItemRead]
    dataset: DatasetRead
