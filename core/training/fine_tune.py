"""A LoRA from pictures: prepare, learn, measure, export.

What it takes of memory is told by core.estimate. Writes the LoRA in two formats, ``report.json``,
the pictures drawn on the way, and checkpoints, from any of which the run goes on to the same end.
"""

import json
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from core.diffusion import adapter, lora
from core.diffusion.components import Components, shape_of
from core.diffusion.offload import moved
from core.files import atomic
from core.ladder import Rung
from core.specs import FineTuneSpec
from core.training import export, fit, measure, preparation
from core.training.cache import Cache
from core.training.data import Source
from core.training.origin import origin_of
from core.training.precision import deterministic_algorithms
from core.training.report import StepReport
from core.training.run import Run
from core.training.summary import summary
from core.training.trainee import enrol

CPU = torch.device("cpu")


def train(
    spec: FineTuneSpec,
    components: Components,
    sources: Sequence[Source],
    out: Path,
    *,
    cache: Cache | None = None,
    start: Path | None = None,
    checkpoints: Sequence[Path] = (),
    first_rung: int = 0,
) -> Generator[StepReport, None, None]:
    """Yields at each step, at each denoising step of a sample, and while preparing and checking.

    The components are as they were when the generator ends, however it ends. ``Interrupted`` may be
    thrown into it.

    Args:
        spec: what to do; ``seed`` None counts as 0.
        components: the base. Only its UNet is trained, by a LoRA beside it.
        sources: at least one picture.
        out: folder that the files go to.
        cache: of encoded pictures and captions, and of class pictures; None: one inside ``out``.
        start: a LoRA's file to begin with, of the spec's rank and targets.
        checkpoints: of earlier runs of the same lesson, the newest first; the first that is whole
            is gone on from.
        first_rung: of the ladder (core.ladder); those above were too much for the device.

    Raises:
        NonFiniteLoss: names the step.
        ExportMismatch: the LoRA that was written is not the one that was trained.
        OutOfMemory: the device has not enough for this rung.
        DatasetNotCaptioned: neither the spec nor a picture says what is on it.
        WrongCheckpoint: a checkpoint is of another lesson.
        LayoutMismatch: ``start`` has other modules or sizes.
    """
    cache = cache or Cache(out / "cache", links=out / "links")
    advice = "`resolution`, `batch_size` or `lora.rank`"
    with (
        fit.attempted(
            spec,
            shape_of(components),
            components.device,
            pictures=len(sources),
            first=first_rung,
            advice=advice,
        ) as rung,
        deterministic_algorithms(spec.deterministic),
        fit.checkpointing(components.unet, rung.checkpointing),
    ):
        yield from _train(spec, components, sources, out, cache, start, checkpoints, rung)


def _train(
    spec: FineTuneSpec,
    components: Components,
    sources: Sequence[Source],
    out: Path,
    cache: Cache,
    start: Path | None,
    checkpoints: Sequence[Path],
    rung: Rung,
) -> Iterator[StepReport]:
    now = yield from fit.begin(spec, components.device, rung, pictures=len(sources))
    prepared = yield from preparation.prepare(
        rung.split(spec), components, sources, cache, now, rung
    )
    course = prepared.course
    if start:
        course.lora.begin_with(adapter.read(start).unet)
    run = Run(
        course=course,
        trainee=enrol(course.lora.weights, spec, components.dtype),
        studio=prepared.studio,
        origin=origin_of(spec, components, sources, start, rung),
        out=out,
    )
    run.go_on_from(checkpoints)
    with moved(CPU, *prepared.idle):
        with course.lora.attached(components.unet):
            now = yield from run.learn(now.steps)
            with run.trainee.shown():
                now = replace(now, message="measuring the LoRA")
                measured = yield from measure.measure(course, prepared.grid, now)
        now = replace(now, message="checking the export")
        yield now
        with run.trainee.shown():
            made = export.save(course.lora, out, spec, spec.resolution or components.native_size)
            lora.check_export(course.lora, list(made.values()), components)
    told = {
        "base": spec.base,
        **summary(run, components, cache, rung, prepared.grid.kept_out, now),
        measured.name: {"before": measured.base, "after": measured.lora},
        "class_drift": measured.drift,
    }
    made["report"] = out / "report.json"
    atomic.write_text(made["report"], json.dumps(told, indent=2))
    yield replace(now, message="done", outputs=made)
