"""What a job will take, told before it is queued, and whether any device here can hold it."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from core import estimate
from core.db.models import Worker
from core.errors import DoesNotFit
from core.jobs import rates
from core.jobs.admission import Admitted
from core.jobs.claim import KINDS_OF_ROLE
from core.jobs.rates import Basis
from core.ladder import rungs
from core.specs import AnySpec, FineTuneSpec, GenerateSpec, TrainingSpec
from core.workers import service as workers


@dataclass(frozen=True)
class Fit:
    """``peak_memory_bytes`` is for the device that holds it best, ``room_bytes`` what that one has,
    None while no worker has told. ``fits`` is true until all devices are known to be too small."""

    peak_memory_bytes: int
    room_bytes: int | None

    @property
    def fits(self) -> bool:
        return self.room_bytes is None or self.peak_memory_bytes <= self.room_bytes


@dataclass(frozen=True)
class Forecast(Fit):
    steps: int
    seconds: float | None
    basis: Basis
    disk_bytes: int


def of(session: Session, owner: str, admitted: Admitted) -> Forecast:
    able = _able(session, admitted)
    chips = {worker.chip for worker in able if worker.chip}
    seconds, basis = rates.seconds_of(session, chips, owner, admitted.spec, admitted.steps)
    return Forecast(
        **vars(_fit_on(able, admitted)),
        steps=admitted.steps,
        seconds=seconds,
        basis=basis,
        disk_bytes=_disk_bytes(admitted),
    )


def fit_of(session: Session, admitted: Admitted) -> Fit:
    return _fit_on(_able(session, admitted), admitted)


def require_fit(fit: Fit, spec: AnySpec) -> None:
    """Raises DoesNotFit."""
    if fit.fits or fit.room_bytes is None:
        return
    rank = ", a smaller rank" if isinstance(spec, FineTuneSpec) else ""
    again = " or, where `gradient_checkpointing` is false, leave that to auto"
    advice = f"ask for fewer pixels{rank}{again if isinstance(spec, TrainingSpec) else ''}"
    raise DoesNotFit(
        f"It takes {_gigabytes(fit.peak_memory_bytes)} of memory at least, and the device "
        f"here that comes nearest has {_gigabytes(fit.room_bytes)}: {advice}."
    )


def _able(session: Session, admitted: Admitted) -> list[Worker]:
    """Those that may take it."""
    needed = {admitted.pipeline.parts.id, admitted.also_base} - {None}
    return [
        worker
        for worker in workers.live_workers(session)
        if admitted.spec.kind in KINDS_OF_ROLE[worker.role] and needed <= set(worker.bases)
    ]


def _fit_on(able: Sequence[Worker], admitted: Admitted) -> Fit:
    tried = [(_peak_bytes(admitted, worker), worker.memory_bytes) for worker in able]
    return Fit(*max(tried, key=_left_over) if tried else (_peak_bytes(admitted, None), None))


def _peak_bytes(admitted: Admitted, worker: Worker | None) -> int:
    """On the rung that such a worker would take; the last where none fits."""
    spec, base = admitted.spec, admitted.pipeline
    on_gpu = worker is not None and worker.device.startswith("cuda")
    if isinstance(spec, GenerateSpec):
        return estimate.generate_bytes(spec, base, on_gpu=on_gpu)
    room_bytes = worker.memory_bytes if worker else None
    for rung in rungs(spec):
        needed = estimate.training_bytes(
            spec, base, rung, pictures=admitted.pictures, on_gpu=on_gpu
        )
        if room_bytes is None or needed <= room_bytes:
            break
    return needed


def _disk_bytes(admitted: Admitted) -> int:
    spec, base = admitted.spec, admitted.pipeline
    if isinstance(spec, GenerateSpec):
        return estimate.generate_disk_bytes(spec, base)
    return estimate.training_disk_bytes(
        spec, base, steps=admitted.steps, pictures=admitted.pictures
    )


def _left_over(tried: tuple[int, int | None]) -> float:
    peak_bytes, room_bytes = tried
    return float("inf") if room_bytes is None else room_bytes - peak_bytes


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
