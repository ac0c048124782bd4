"""Which rung of the ladder a run takes on the device that it has."""

import torch

from core import bases, estimate
from core.ladder import rungs
from core.specs import FineTuneSpec
from core.training import memory


def choose(spec: FineTuneSpec, device: torch.device, *, pictures: int, first: int) -> int:
    """The number of the fastest rung that the free memory holds; the last where none fits.

    Args:
        pictures: how many are learnt.
        first: the rung to begin with: those above were tried, and were too much.
    """
    ladder, room = rungs(spec), memory.room_bytes(device)
    if room is None:
        return first
    base = bases.find(spec.base)
    for number in range(first, len(ladder)):
        needed = estimate.fine_tune_bytes(
            spec, base, ladder[number], pictures=pictures, on_gpu=device.type == "cuda"
        )
        if needed <= room:
            return number
    return len(ladder) - 1
