"""What a job's ``base`` means: a base model, or one with another UNet."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from core import catalogue
from core.artifacts import service as artifacts
from core.bases import BaseModel
from core.db.models import Artifact
from core.errors import Unprocessable
from core.layouts import LAYOUTS, UNetShape

_ARTIFACT = "art_"


@dataclass(frozen=True)
class Pipeline(UNetShape):
    """``parts`` lends everything beside the UNet, and the UNet too where no artifact is one.

    The shape is the UNet's.
    """

    id: str
    parts: BaseModel
    unet: Artifact | None = None


def find(session: Session, owner: str, base_id: str) -> Pipeline:
    """Raises BaseUnknown, NotFound or Unprocessable when there is no such base."""
    if base_id.startswith(_ARTIFACT):
        return of_unet(session, artifacts.get(session, owner, base_id))
    base = catalogue.find(session, base_id)
    return Pipeline(base.layout, base.widths, base.native_size, base.id, base)


def of_unet(session: Session, artifact: Artifact) -> Pipeline:
    """Raises Unprocessable when it is no UNet, or one that only other programs read; BaseUnknown
    when the base that lends the rest was removed."""
    if artifact.kind != "unet" or artifact.format != "diffusers":
        raise Unprocessable(
            f"'{artifact.id}' is of kind {artifact.kind} and format {artifact.format}: what stands "
            "in for a base is of kind unet and format diffusers, such as `result.unet` of a "
            "distillation.",
            code="not_a_unet",
        )
    parts = catalogue.find(session, str(artifact.base))  # its teacher's
    layout = LAYOUTS[str(artifact.layout)]
    return Pipeline(layout, parts.widths, parts.native_size, artifact.id, parts, artifact)
