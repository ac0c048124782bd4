"""What is checked before a job is queued, so that nothing fails for a reason known at submit."""

import secrets
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core import bases
from core.artifacts import service as artifacts
from core.bases import BaseModel
from core.config import Settings
from core.datasets import service as datasets
from core.db.models import Artifact, Job
from core.errors import LayoutMismatch, TooMany, Unprocessable
from core.jobs.states import State
from core.specs import MAX_SEED, SPECS, AnySpec, FineTuneSpec, GenerateSpec
from core.workers import service as workers


@dataclass(frozen=True)
class Admitted:
    """A spec with every default filled in, how long it is, and what it needs to stay there.

    ``inputs`` are ``(kind, id)`` of each dataset and artifact that the job will read; ``pictures``
    counts those that it learns.
    """

    kind: str
    spec: AnySpec
    steps: int
    inputs: list[tuple[str, str]]
    pictures: int = 0


def parse(kind: str, spec: dict[str, Any]) -> AnySpec:
    """The spec as the model of its ``kind``, a key of SPECS. Raises pydantic's ValidationError."""
    return SPECS[kind].model_validate(spec)


def admit(session: Session, owner: str, spec: AnySpec) -> Admitted:
    """Checks what the spec names, fills in what depends on it, and freezes its dataset."""
    base = _available_base(session, spec.base)
    if isinstance(spec, FineTuneSpec):
        return _admit_fine_tune(session, owner, spec, base)
    return _admit_generate(session, owner, spec, base)


def require_room(session: Session, owner: str, settings: Settings) -> None:
    """Raises TooMany at the cap of waiting jobs."""
    waiting = session.scalar(
        select(func.count()).where(Job.owner == owner, Job.state == State.QUEUED)
    )
    if (waiting or 0) >= settings.max_queued_jobs:
        raise TooMany(
            f"{waiting} of your jobs are waiting and {settings.max_queued_jobs} may: cancel some, "
            "or wait until they have run.",
            code="too_many_queued",
            retry_after_seconds=60,
        )


def _available_base(session: Session, base_id: str) -> BaseModel:
    base = bases.find(base_id)
    if base.source is not None and base.id not in workers.bases_on_workers(session):
        raise bases.not_available(base)
    return base


def _admit_fine_tune(session: Session, owner: str, spec: FineTuneSpec, base: BaseModel) -> Admitted:
    dataset = datasets.get(session, owner, spec.dataset)
    datasets.freeze(session, dataset)  # before counting: nothing is added from here on
    images = datasets.require_ready(session, dataset)
    if spec.instance_prompt is None:
        datasets.require_captions(session, dataset)
    inputs = [("dataset", dataset.id)]
    if spec.init_from:
        _require_start(artifacts.get(session, owner, spec.init_from), spec, base)
        inputs.append(("artifact", spec.init_from))
    steps = spec.count_steps(images)
    filled = spec.model_copy(
        update={
            "steps": None if spec.epochs else steps,
            "resolution": spec.resolution or base.native_size,
            "seed": _seed(spec.seed),
        }
    )
    return Admitted("fine_tune", filled, steps, inputs, pictures=images)


def _admit_generate(session: Session, owner: str, spec: GenerateSpec, base: BaseModel) -> Admitted:
    for use in spec.loras:
        _require_fitting_lora(artifacts.get(session, owner, use.artifact), base)
    filled = spec.model_copy(
        update={
            "width": spec.width or base.native_size,
            "height": spec.height or base.native_size,
            "seed": _seed(spec.seed),
        }
    )
    steps = len(spec.prompts) * spec.images * spec.steps
    unique = dict.fromkeys(use.artifact for use in spec.loras)
    return Admitted(
        "generate", filled, steps, [("artifact", artifact_id) for artifact_id in unique]
    )


def _require_start(artifact: Artifact, spec: FineTuneSpec, base: BaseModel) -> None:
    """That training may begin with this LoRA."""
    _require_fitting_lora(artifact, base)
    rank = artifact.facts.get("rank")
    if rank != spec.lora.rank:
        raise Unprocessable(
            f"`init_from` '{artifact.id}' is of rank {rank}, `lora.rank` is {spec.lora.rank}: "
            "they must be equal.",
            code="rank_mismatch",
        )


def _require_fitting_lora(artifact: Artifact, base: BaseModel) -> None:
    if artifact.kind != "lora":
        raise Unprocessable(
            f"'{artifact.id}' is of kind {artifact.kind}, not lora: it cannot be applied.",
            code="not_a_lora",
        )
    trained_on = bases.CATALOGUE.get(artifact.base or "")
    if artifact.layout != base.layout.id or (trained_on and trained_on.widths != base.widths):
        raise LayoutMismatch(
            f"The LoRA '{artifact.id}' was trained on '{artifact.base}' (layout "
            f"{artifact.layout}) and does not fit '{base.id}' (layout {base.layout.id}): its "
            "modules have other names or shapes there. Use the base it was trained on."
        )


def _seed(given: int | None) -> int:
    return secrets.randbelow(MAX_SEED + 1) if given is None else given
