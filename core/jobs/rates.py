"""How long an owner's work took on the chips here, and what that says of work to come."""

import json
from collections.abc import Collection
from hashlib import sha256
from typing import Literal

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from core.db.models import Rate, now
from core.specs import AnySpec, DistillSpec, FineTuneSpec, GenerateSpec

Basis = Literal["measured", "calibrated", "none"]

_PACE_OF_A_TRAINING = frozenset(
    {
        *("resolution", "batch_size", "accumulation", "optimizer", "ema", "gradient_checkpointing"),
        *("precision", "deterministic", "sample", "keep_every"),
    }
)
_PACE = {
    FineTuneSpec: _PACE_OF_A_TRAINING | {"base", "lora", "prior"},
    DistillSpec: _PACE_OF_A_TRAINING | {"teacher", "student", "loss"},
    GenerateSpec: frozenset({"base", "width", "height", "precision"}),
}
"""Fields that a job's time depends on."""


def remember(
    session: Session,
    chip: str,
    owner: str,
    spec: AnySpec,
    *,
    seconds_per_step: float,
    other_seconds: float,
) -> None:
    """In place of what the owner's last job of this sort took there."""
    taken = {
        "seconds_per_step": seconds_per_step,
        "other_seconds": other_seconds,
        "measured_at": now(),
    }
    sort = {"chip": chip, "owner": owner, "work": work_of(spec)}
    known = update(Rate).filter_by(**sort).values(**taken)
    if session.execute(known.returning(Rate.chip)).first():
        return
    rate = Rate(kind=spec.kind, base=spec.base, cost=cost_of(spec), **sort, **taken)
    try:
        with session.begin_nested():
            session.add(rate)
    except IntegrityError:
        session.execute(known)  # another worker's first of this sort came in between


def seconds_of(
    session: Session, chips: Collection[str], owner: str, spec: AnySpec, steps: int
) -> tuple[float | None, Basis]:
    """``measured``: of a whole job, on the owner's last of the same sort. ``calibrated``: of its
    steps alone, on other work of the owner's on that base, by samples times pixels. Else None and
    ``none``."""
    of_owner = select(Rate).where(Rate.chip.in_(chips), Rate.owner == owner)
    newest = of_owner.order_by(Rate.measured_at.desc()).limit(1)
    same = session.scalar(newest.where(Rate.work == work_of(spec)))
    if same:
        return round(same.other_seconds + steps * same.seconds_per_step, 1), "measured"
    near = session.scalar(newest.where(Rate.base == spec.base, Rate.kind == spec.kind))
    if near:
        return round(steps * near.seconds_per_step * cost_of(spec) / near.cost, 1), "calibrated"
    return None, "none"


def work_of(spec: AnySpec) -> str:
    """The hash of all that a job's time depends on, but for the number of steps."""
    facts = spec.model_dump(mode="json", include=set(_PACE[type(spec)]))
    if isinstance(spec, GenerateSpec):
        facts["guidance"] = spec.guidance > 1
    return sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def cost_of(spec: AnySpec) -> float:
    """Of a step of a spec whose gaps are filled, in samples times pixels."""
    if isinstance(spec, GenerateSpec):
        rows = 2 if spec.guidance > 1 else 1
        return float(rows * (spec.width or 0) * (spec.height or 0))
    twice = isinstance(spec, FineTuneSpec) and spec.prior
    samples = spec.batch_size * spec.accumulation * (2 if twice else 1)
    return float(samples * (spec.resolution or 0) ** 2)
