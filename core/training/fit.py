"""Which rung of the ladder a run takes on the device that it has, and what it says when that was
too much."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from diffusers import UNet2DConditionModel

from core.errors import OutOfMemory
from core.estimate import training_bytes
from core.footprints import is_counted
from core.full_memory import is_full_memory
from core.ladder import Rung, rungs
from core.layouts import UNetShape
from core.specs import DistillSpec, FineTuneSpec
from core.training import memory
from core.training.report import StepReport


def choose(
    spec: FineTuneSpec | DistillSpec,
    base: UNetShape,
    device: torch.device,
    *,
    pictures: int,
    first: int,
) -> int:
    """The number of the fastest rung that the free memory holds; the last where none fits.

    Args:
        base: which UNet it trains on. Of one that nobody has counted, the fastest rung is tried.
        first: the rung to begin with: those above were tried, and were too much.
    """
    ladder, room = rungs(spec), memory.room_bytes(device)
    if room is None or not is_counted(base):
        return first
    on_gpu = device.type == "cuda"
    for number in range(first, len(ladder)):
        if training_bytes(spec, base, ladder[number], pictures=pictures, on_gpu=on_gpu) <= room:
            return number
    return len(ladder) - 1


def begin(
    spec: FineTuneSpec | DistillSpec, device: torch.device, rung: Rung, *, pictures: int
) -> Generator[StepReport, None, StepReport]:
    """A run's first report, which is returned; it is noted where memory made the run take another
    rung than the fastest."""
    memory.reset_peak(device)
    now = StepReport(0, spec.count_steps(pictures), message="encoding pictures")
    if rung != rungs(spec)[0]:
        yield replace(now, note=f"memory is short: {rung}")
    return now


@contextmanager
def attempted(
    spec: FineTuneSpec | DistillSpec,
    base: UNetShape,
    device: torch.device,
    *,
    pictures: int,
    first: int,
    advice: str,
) -> Iterator[Rung]:
    """Inside, the run takes the rung that ``choose`` found.

    Args:
        advice: what to ask less of.

    Raises:
        OutOfMemory: it was too much; names the next rung, where there is one.
    """
    ladder, number = rungs(spec), choose(spec, base, device, pictures=pictures, first=first)
    try:
        yield ladder[number]
    except RuntimeError as full:
        if not is_full_memory(full):
            raise
        raise OutOfMemory(
            f"{device} does not hold it even with {ladder[number]}: lower {advice}, or leave "
            "`gradient_checkpointing` to auto.",
            next_rung=number + 1 if number + 1 < len(ladder) else None,
        ) from full


@contextmanager
def checkpointing(unet: UNet2DConditionModel, wanted: bool) -> Iterator[None]:
    """Inside, activations of the UNet's blocks are computed again in place of being kept."""
    if wanted:
        unet.enable_gradient_checkpointing()
    try:
        yield
    finally:
        if wanted:
            unet.disable_gradient_checkpointing()
