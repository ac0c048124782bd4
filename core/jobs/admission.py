"""What is checked before a job is queued, so that nothing fails for a reason known at submit."""

import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import bindparam, func, select
from sqlalchemy.orm import Session

from core import bases, catalogue, chunks
from core.artifacts import service as artifacts
from core.config import Settings
from core.datasets import service as datasets
from core.db.models import Artifact, Dataset, Job, takes_room
from core.errors import BaseUnknown, LayoutMismatch, NotFound, TooMany, Unprocessable
from core.jobs import pipelines
from core.jobs.pipelines import Pipeline
from core.jobs.states import State
from core.layouts import SDXL
from core.loras.fit import Fit
from core.owners import quotas
from core.specs import (
    MAX_SEED,
    SPECS,
    AnySpec,
    DistillSpec,
    FineTuneSpec,
    GenerateSpec,
    TrainingSpec,
)
from core.workers import service as workers

T = TypeVar("T", bound=TrainingSpec)


@dataclass(frozen=True)
class Admitted:
    """A spec with every default filled in, how long it is, and what it needs to stay there.

    ``inputs`` are ``(kind, id)`` of each dataset and artifact that the job will read, and of each
    job whose result it will read; ``pictures`` counts those that it learns. ``pipeline`` is what it
    draws or learns with; ``also_base`` is another base model that its worker must have.
    """

    spec: AnySpec
    steps: int
    inputs: list[tuple[str, str]]
    pipeline: Pipeline
    also_base: str | None = None
    pictures: int = 0


def parse(kind: str, spec: dict[str, Any]) -> AnySpec:
    """The spec as the model of its ``kind``, a key of SPECS. Raises pydantic's ValidationError."""
    return SPECS[kind].model_validate(spec)


def admit(session: Session, owner: str, spec: AnySpec) -> Admitted:
    """Checks what the spec names, fills in what depends on it, and freezes its dataset."""
    for prompt in _drawn_prompts(spec):
        chunks.require_few(chunks.count_at_least(prompt))
    pipeline = _available(session, owner, spec.base)
    if isinstance(spec, FineTuneSpec):
        return _admit_fine_tune(session, owner, spec, pipeline)
    if isinstance(spec, DistillSpec):
        return _admit_distill(session, owner, spec, pipeline)
    return _admit_generate(session, owner, spec, pipeline)


def _drawn_prompts(spec: AnySpec) -> list[str]:
    """Those of pictures that it makes; of what is learnt, one chunk is read."""
    if isinstance(spec, GenerateSpec):
        return [*spec.prompts, spec.negative_prompt or ""]
    return spec.sample.prompts if spec.sample else []


_WAITING = select(func.count()).where(Job.owner == bindparam("owner"), takes_room)


def require_room(session: Session, owner: str, settings: Settings) -> None:
    """Raises TooMany at the cap of waiting jobs, or where there is no room for what one makes."""
    waiting = session.scalar(_WAITING, {"owner": owner})
    if (waiting or 0) >= settings.max_queued_jobs:
        raise TooMany(
            f"{waiting} of your jobs are waiting and {settings.max_queued_jobs} may: cancel some, "
            "or wait until they have run.",
            code="too_many_queued",
            retry_after_seconds=60,
        )
    quotas.require_storage(session, owner, settings)


def _available(session: Session, owner: str, base_id: str) -> Pipeline:
    pipeline = pipelines.find(session, owner, base_id)
    base = pipeline.parts
    if not base.is_ours and base.id not in workers.bases_on_workers(session):
        raise bases.not_available(base)
    if base.place:
        catalogue.hold(session, base.id)
    return pipeline


def _admit_fine_tune(session: Session, owner: str, spec: FineTuneSpec, base: Pipeline) -> Admitted:
    dataset, images = _take_dataset(session, owner, spec.dataset)
    if spec.instance_prompt is None:
        other = ", or name what all pictures show with `instance_prompt`"
        datasets.require_captions(session, dataset, other=other)
    inputs = [("dataset", dataset.id), *_unet_input(base)]
    if spec.init_from:
        _require_start(session, artifacts.get(session, owner, spec.init_from), spec, base)
        inputs.append(("artifact", spec.init_from))
    filled = _filled(spec, base, images)
    steps = spec.count_steps(images)
    return Admitted(filled, steps, inputs, base, pictures=images)


def _admit_distill(session: Session, owner: str, spec: DistillSpec, teacher: Pipeline) -> Admitted:
    if teacher.layout != SDXL:
        raise LayoutMismatch(
            f"`teacher` '{teacher.id}' is of layout {teacher.layout.id}: a teacher is of SDXL's, "
            "such as sdxl or nano-sdxl."
        )
    dataset, images = _take_dataset(session, owner, spec.dataset)
    datasets.require_captions(session, dataset)
    inputs, also_base = [("dataset", dataset.id)], None
    if spec.start:
        start = _available(session, owner, spec.start)
        _require_student(start, spec, teacher)
        inputs += _unet_input(start)
        also_base = None if start.unet else start.id
    filled = _filled(spec, teacher, images)
    steps = spec.count_steps(images)
    return Admitted(filled, steps, inputs, teacher, also_base, pictures=images)


def _take_dataset(session: Session, owner: str, dataset_id: str) -> tuple[Dataset, int]:
    """The dataset, frozen, and how many pictures it holds."""
    dataset = datasets.get(session, owner, dataset_id)
    datasets.freeze(session, dataset)  # before counting: nothing is added from here on
    return dataset, datasets.require_ready(session, dataset)


def _filled(spec: T, base: Pipeline, images: int) -> T:
    """With what depends on base and dataset, and a seed."""
    return spec.model_copy(
        update={
            "steps": None if spec.epochs else spec.count_steps(images),
            "resolution": spec.resolution or base.native_size,
            "seed": _seed(spec.seed),
        }
    )


def _unet_input(base: Pipeline) -> list[tuple[str, str]]:
    return [("artifact", base.unet.id)] if base.unet else []


def _require_student(start: Pipeline, spec: DistillSpec, teacher: Pipeline) -> None:
    """That a student may begin with these weights."""
    layout = spec.student.layout
    if start.layout.id != layout or start.widths != teacher.widths:
        raise LayoutMismatch(
            f"`student.weights` '{start.id}' is of layout {start.layout.id} with widths "
            f"{start.widths}; a student of '{teacher.id}' and layout {layout} has widths "
            f"{teacher.widths}. Name weights of that build."
        )


def _admit_generate(session: Session, owner: str, spec: GenerateSpec, base: Pipeline) -> Admitted:
    for use in spec.loras:
        if use.artifact:
            _require_fitting_lora(session, artifacts.get(session, owner, use.artifact), base)
        else:
            _require_fitting_maker(session, owner, str(use.job), base)
    filled = spec.model_copy(
        update={
            "width": spec.width or base.native_size,
            "height": spec.height or base.native_size,
            "seed": _seed(spec.seed),
        }
    )
    steps = len(spec.prompts) * spec.images * spec.denoising_steps
    named = [("artifact" if use.artifact else "job", use.artifact or use.job) for use in spec.loras]
    inputs = [(kind, str(input_id)) for kind, input_id in dict.fromkeys(named)]
    inputs += _made_already(session, owner, {str(use.job) for use in spec.loras if use.job})
    if spec.image:
        dataset = datasets.get(session, owner, spec.image.dataset)
        datasets.get_image(session, dataset, spec.image.image)
        inputs.append(("dataset", dataset.id))
    return Admitted(filled, steps, inputs + _unet_input(base), base)


def _require_start(
    session: Session, artifact: Artifact, spec: FineTuneSpec, base: Pipeline
) -> None:
    """That training may begin with this LoRA."""
    _require_fitting_lora(session, artifact, base)
    rank = artifact.facts.get("rank")
    if rank != spec.lora.rank:
        told = f"of rank {rank}" if rank else "of several ranks"
        raise Unprocessable(
            f"`init_from` '{artifact.id}' is {told}, `lora.rank` is {spec.lora.rank}: "
            "they must be equal.",
            code="rank_mismatch",
        )
    if "models" in artifact.facts:
        _require_same_modules(artifact, spec)


def _require_same_modules(artifact: Artifact, spec: FineTuneSpec) -> None:
    """Of one that was brought: it may change more than a training does, or less."""
    facts, wanted = artifact.facts, spec.lora.targets
    more = [model for model in facts["models"] if model != "unet"]
    odd = f"changes {' and '.join(more)} too" if more else "is a DoRA" if facts["dora"] else ""
    if not odd and facts["targets"] != wanted:
        odd = f"does not change just what `lora.targets` '{wanted}' means"
    if odd:
        raise Unprocessable(
            f"`init_from` '{artifact.id}' {odd}: a training begins with a LoRA on the same layers "
            "of the UNet, all of them and no others.",
            code="targets_mismatch",
        )


def _require_fitting_lora(session: Session, artifact: Artifact, base: Pipeline) -> None:
    if artifact.kind != "lora":
        raise Unprocessable(
            f"'{artifact.id}' is of kind {artifact.kind}, not lora: it cannot be applied.",
            code="not_a_lora",
        )
    if fit := Fit.told_by(artifact.facts):
        return _require_fit(fit, artifact, base)
    trained_on = _trained_on(session, artifact)
    if artifact.layout != base.layout.id or (trained_on and trained_on.widths != base.widths):
        raise LayoutMismatch(
            f"The LoRA '{artifact.id}' was trained on '{artifact.base}' (layout "
            f"{artifact.layout}) and does not fit '{base.id}' (layout {base.layout.id}): its "
            "modules have other names or shapes there. Use the base it was trained on."
        )


def _require_fit(fit: Fit, artifact: Artifact, base: Pipeline) -> None:
    """Of one that was brought: nobody knows what it was trained on."""
    if not fit.suits(base):
        raise LayoutMismatch(
            f"The LoRA '{artifact.id}' is for layout {' or '.join(fit.layouts)} with widths "
            f"{_listed(fit.widths)} and does not fit '{base.id}' (layout {base.layout.id}, widths "
            f"{_listed(fit.widths_of(base))}): use the base it was trained on."
        )


def _listed(widths: Mapping[str, int]) -> str:
    return ", ".join(f"{width} ({where})" for where, width in sorted(widths.items()))


def _require_fitting_maker(session: Session, owner: str, job_id: str, base: Pipeline) -> None:
    """That a job will make a LoRA that fits."""
    maker = session.get(Job, job_id)
    if maker is None or maker.owner != owner:
        raise NotFound(f"There is no job '{job_id}'.")
    if maker.kind != "fine_tune":
        raise Unprocessable(
            f"'{job_id}' is a {maker.kind} job: only fine_tune jobs make a LoRA.", code="not_a_lora"
        )
    learns_on = pipelines.find(session, owner, parse(maker.kind, maker.spec).base)
    if (learns_on.layout, learns_on.widths) != (base.layout, base.widths):
        raise LayoutMismatch(
            f"The LoRA of '{job_id}' is trained on '{learns_on.id}' (layout {learns_on.layout.id}) "
            f"and does not fit '{base.id}' (layout {base.layout.id}): use the base it is trained "
            "on."
        )


def _made_already(session: Session, owner: str, makers: Collection[str]) -> list[tuple[str, str]]:
    """The LoRAs of those jobs that have ended, so that they are kept as long as they are needed.

    Raises NotFound when one was deleted.
    """
    ended = select(Job).where(Job.id.in_(makers), Job.state == State.SUCCEEDED)
    made = [(job.result or {})["lora"] for job in session.scalars(ended)]
    return [("artifact", artifacts.get(session, owner, each).id) for each in made]


def _trained_on(session: Session, artifact: Artifact) -> Pipeline | None:
    """None where nobody knows, or it is gone."""
    if artifact.base is None:
        return None
    try:
        return pipelines.find(session, artifact.owner, artifact.base)
    except (NotFound, BaseUnknown):
        return None


def _seed(given: int | None) -> int:
    return secrets.randbelow(MAX_SEED + 1) if given is None else given
