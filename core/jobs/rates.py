"""How long work took on the chips here, and what that says of work to come."""

import json
from collections.abc import Collection
from hashlib import sha256
from typing import Literal

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from core import bases
from core.db.models import Rate, now
from core.specs import AnySpec, FineTuneSpec

Basis = Literal["measured", "calibrated", "none"]

_PACE_OF_A_FINE_TUNE = frozenset(
    {
        *("base", "resolution", "batch_size", "accumulation", "optimizer", "ema"),
        *("lora", "gradient_checkpointing", "precision"),
    }
)
_PACE_OF_A_PICTURE = frozenset({"base", "width", "height", "guidance", "precision"})


def remember(
    session: Session, chip: str, spec: AnySpec, *, seconds_per_step: float, other_seconds: float
) -> None:
    """In place of what the last job of this sort took there."""
    taken = {
        "seconds_per_step": seconds_per_step,
        "other_seconds": other_seconds,
        "measured_at": now(),
    }
    work = work_of(spec)
    known = update(Rate).where(Rate.chip == chip, Rate.work == work).values(**taken)
    if session.execute(known.returning(Rate.chip)).first():
        return
    rate = Rate(
        chip=chip, work=work, kind=_kind_of(spec), base=spec.base, cost=cost_of(spec), **taken
    )
    try:
        with session.begin_nested():
            session.add(rate)
    except IntegrityError:
        session.execute(known)  # another worker's first of this sort came in between


def seconds_of(
    session: Session, chips: Collection[str], spec: AnySpec, steps: int
) -> tuple[float | None, Basis]:
    """Of a whole job: ``measured`` on work of the same sort, or ``calibrated`` on other work on the
    same base, by samples times pixels; None with ``none`` where nothing was measured."""
    rates = list(
        session.scalars(
            select(Rate)
            .where(Rate.chip.in_(chips), Rate.base == spec.base, Rate.kind == _kind_of(spec))
            .order_by(Rate.measured_at.desc())
            .limit(50)
        )
    )
    same = [rate for rate in rates if rate.work == work_of(spec)]
    if same:
        return _whole(same[0], steps, scale=1.0), "measured"
    if rates:
        return _whole(rates[0], steps, scale=cost_of(spec) / rates[0].cost), "calibrated"
    return None, "none"


def work_of(spec: AnySpec) -> str:
    """The hash of all that a step's time depends on."""
    if isinstance(spec, FineTuneSpec):
        facts = spec.model_dump(mode="json", include=set(_PACE_OF_A_FINE_TUNE))
        facts["prior"] = None if spec.prior is None else spec.prior.images > 0
    else:
        facts = spec.model_dump(mode="json", include=set(_PACE_OF_A_PICTURE))
        facts["guidance"] = spec.guidance > 1
    return sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def cost_of(spec: AnySpec) -> float:
    """Of a step, in samples times pixels."""
    native = bases.find(spec.base).native_size
    if isinstance(spec, FineTuneSpec):
        samples = spec.batch_size * spec.accumulation * (2 if spec.prior else 1)
        return float(samples * (spec.resolution or native) ** 2)
    rows = 2 if spec.guidance > 1 else 1
    return float(rows * (spec.width or native) * (spec.height or native))


def _kind_of(spec: AnySpec) -> str:
    return "fine_tune" if isinstance(spec, FineTuneSpec) else "generate"


def _whole(rate: Rate, steps: int, *, scale: float) -> float:
    return round(rate.other_seconds + steps * rate.seconds_per_step * scale, 1)
