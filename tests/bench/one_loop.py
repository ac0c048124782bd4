"""``python -m tests.bench.one_loop ours|plain SPEC BASE PICTURES OUT``: one way of training in a
process of its own, and what it took as one line of JSON."""

import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from core.diffusion import components
from core.specs import FineTuneSpec
from core.training import fine_tune, memory
from core.training.data import Source
from core.training.report import StepReport
from tests.bench import plain_loop

WARM_UP = 2
"""Steps whose time does not count."""


def main() -> None:
    way, spec_file, base, pictures, out = sys.argv[1:]
    spec = FineTuneSpec.model_validate_json(Path(spec_file).read_text())
    floor_bytes = resident_bytes()
    memory.reset_peak(torch.device("cpu"))
    loaded = components.load(Path(base), device=torch.device("cpu"), dtype=torch.float32)
    sources = [
        Source(path, f"a picture of number {number}")
        for number, path in enumerate(sorted(Path(pictures).iterdir()))
    ]
    steps: Iterator[float | None] = (
        ours(fine_tune.train(spec, loaded, sources, Path(out)))
        if way == "ours"
        else plain_loop.train(spec, loaded, sources)
    )
    seconds, losses = [], []
    began = time.perf_counter()
    for loss in steps:
        seconds.append(time.perf_counter() - began)
        losses.append(loss)
        began = time.perf_counter()
    peak_bytes = memory.peak_bytes(torch.device("cpu"))
    assert peak_bytes is not None, "Linux tells"
    taken = {
        "seconds_per_step": statistics.median(seconds[WARM_UP:]),
        "bytes": peak_bytes - floor_bytes,
        "losses": losses,
    }
    sys.stdout.write(f"{json.dumps(taken)}\n")


def ours(reports: Iterator[StepReport]) -> Iterator[float | None]:
    """A loss a step; None where the loop has not looked."""
    taken = 0
    for report in reports:
        if report.message == "training" and report.step > taken:
            taken = report.step
            yield report.loss


def resident_bytes() -> int:
    (line,) = (
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmRSS:")
    )
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
