"""Artifacts and links to them."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, Field

from api.schemas.common import FlawRead, Name, Sent
from core.artifacts import links
from core.db.models import Artifact

ArtifactKind = Literal["lora", "unet", "image", "report"]
ArtifactFormat = Literal["peft", "kohya", "diffusers", "original", "png", "jpeg", "webp", "json"]


class FileRead(BaseModel):
    path: str
    bytes: int
    sha256: str


class ArtifactRead(BaseModel):
    id: str
    job: str | None
    kind: ArtifactKind
    role: str
    name: str
    format: ArtifactFormat
    bytes: int
    sha256: str
    base: str | None
    layout: str | None
    files: list[FileRead]
    metadata: dict[str, Any]
    created_at: datetime
    expires_at: datetime | None

    @classmethod
    def of(cls, artifact: Artifact) -> "ArtifactRead":
        return cls(
            id=artifact.id,
            job=artifact.job_id,
            kind=artifact.kind,
            role=artifact.role,
            name=artifact.name,
            format=artifact.format,
            bytes=artifact.bytes,
            sha256=artifact.sha256,
            base=artifact.base,
            layout=artifact.layout,
            files=[FileRead.model_validate(file) for file in artifact.files],
            metadata=artifact.facts,
            created_at=artifact.created_at,
            expires_at=artifact.expires_at,
        )


class ArtifactCreate(Sent):
    """What may stand beside the file."""

    name: Name | None = None


def _of_the_calendar(at: datetime) -> datetime:
    try:
        return at.astimezone(UTC)
    except OverflowError:
        raise ValueError("it is beyond the calendar; null means never") from None


class ArtifactChange(Sent):
    """What may be changed of an artifact; what is left out stays."""

    name: Name | None = Field(None, description="null: stays.")
    expires_at: Annotated[AwareDatetime, AfterValidator(_of_the_calendar)] | None = Field(
        None, description="When it is deleted, unless a job needs it then. null: never."
    )


class ArtifactBrought(ArtifactRead):
    warnings: list[FlawRead] = Field(description="What it may not be, though it was taken.")

    @classmethod
    def of(cls, artifact: Artifact) -> "ArtifactBrought":
        told = ArtifactRead.of(artifact).model_dump()
        return cls(**told, warnings=artifact.facts["warnings"])


class LinkCreate(Sent):
    expires_in: int = Field(
        ge=links.MIN_SECONDS, le=links.MAX_SECONDS, description="Seconds, up to seven days."
    )


class LinkRead(BaseModel):
    url: str = Field(description="Opens the bytes for whoever has it: hand it on with care.")
    expires_at: datetime
