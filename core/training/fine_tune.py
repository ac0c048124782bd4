"""A LoRA from pictures: prepare, learn, measure, export.

What it takes of memory is told by core.estimate. Writes the LoRA in two formats, ``report.json``,
the pictures drawn on the way, and checkpoints, from any of which the run goes on to the same end.
"""

import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel

from core.diffusion import adapter, lora
from core.diffusion.components import Components
from core.diffusion.offload import moved
from core.errors import OutOfMemory
from core.files import atomic
from core.ladder import Rung, rungs
from core.specs import FineTuneSpec
from core.training import export, fit, measure, memory, preparation
from core.training.cache import Cache
from core.training.data import Source
from core.training.measure import Measured
from core.training.origin import origin_of
from core.training.precision import deterministic_algorithms
from core.training.report import StepReport
from core.training.run import Run
from core.training.trainee import enrol

CPU = torch.device("cpu")


def train(
    spec: FineTuneSpec,
    components: Components,
    sources: Sequence[Source],
    out: Path,
    *,
    cache: Cache | None = None,
    init_from: Path | None = None,
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
        init_from: a LoRA's file to begin with, of the spec's rank and targets.
        checkpoints: of earlier runs of the same lesson, the newest first; the first that is whole
            is gone on from.
        first_rung: of the ladder (core.ladder); those above were too much for the device.

    Raises:
        NonFiniteLoss: names the step.
        ExportMismatch: the LoRA that was written is not the one that was trained.
        OutOfMemory: the device has not enough for this rung.
        DatasetNotCaptioned: neither the spec nor a picture says what is on it.
        WrongCheckpoint: a checkpoint is of another lesson.
        LayoutMismatch: ``init_from`` has other modules or sizes.
    """
    cache = cache or Cache(out / "cache", links=out / "links")
    number = fit.choose(spec, components.device, pictures=len(sources), first=first_rung)
    ladder = rungs(spec)
    try:
        with (
            deterministic_algorithms(spec.deterministic),
            _checkpointing(components.unet, ladder[number].checkpointing),
        ):
            training = _train(
                spec, components, sources, out, cache, init_from, checkpoints, ladder[number]
            )
            yield from training
    except RuntimeError as full:
        if not _is_out_of_memory(full):
            raise
        raise OutOfMemory(
            f"{components.device} does not hold it even with {ladder[number]}: lower `resolution`, "
            "`batch_size` or `lora.rank`, or leave `gradient_checkpointing` to auto.",
            next_rung=number + 1 if number + 1 < len(ladder) else None,
        ) from full


def _train(
    spec: FineTuneSpec,
    components: Components,
    sources: Sequence[Source],
    out: Path,
    cache: Cache,
    init_from: Path | None,
    checkpoints: Sequence[Path],
    rung: Rung,
) -> Iterator[StepReport]:
    memory.reset_peak(components.device)
    now = StepReport(0, spec.count_steps(len(sources)), message="encoding pictures")
    if rung != rungs(spec)[0]:
        yield replace(now, note=f"memory is short: {rung}")
    prepared = yield from preparation.prepare(
        rung.split(spec), components, sources, cache, now, rung
    )
    course = prepared.course
    if init_from:
        course.lora.begin_with(adapter.read(init_from))
    run = Run(
        course=course,
        trainee=enrol(course.lora.weights, spec, components.dtype),
        studio=prepared.studio,
        origin=origin_of(spec, components, sources, init_from, rung),
        out=out,
    )
    run.go_on_from(checkpoints)
    with moved(CPU, *prepared.idle):
        with course.lora.attached(components.unet):
            now = yield from run.learn(now.steps)
            with run.trainee.shown():
                now = replace(now, message="measuring the LoRA")
                measured = yield from measure.measure(course, prepared.kept_out, now)
        now = replace(now, message="checking the export")
        yield now
        with run.trainee.shown():
            made = export.save(course.lora, out, spec, spec.resolution or components.native_size)
            lora.check_export(course.lora, list(made.values()), components)
    summary = {
        **_summary(spec, run, measured, cache, now),
        "held_out_pictures": prepared.kept_out,
        "rung": str(rung),
    }
    made["report"] = out / "report.json"
    atomic.write_text(made["report"], json.dumps(summary, indent=2))
    yield replace(now, message="done", outputs=made)


def _summary(
    spec: FineTuneSpec,
    run: Run,
    measured: Measured,
    cache: Cache,
    now: StepReport,
) -> dict[str, object]:
    """What ``report.json`` says."""
    return {
        "base": spec.base,
        "spec": spec.model_dump(mode="json"),
        "seed": spec.seed or 0,
        "steps": now.steps,
        "losses": run.losses,
        measured.name: {"before": measured.base, "after": measured.lora},
        "class_drift": measured.drift,
        "seconds_per_step": now.seconds_per_step,
        "peak_memory_bytes": memory.peak_bytes(run.course.components.device),
        "cache": {"hits": cache.hits, "misses": cache.misses},
        "resumed_from_step": run.resumed_from,
        "exact": run.exact,
        "lesson_sha256": run.origin.lesson,
        **run.origin.arithmetic,
    }


def _is_out_of_memory(error: RuntimeError) -> bool:
    """On the CPU torch has no error of its own for it."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


@contextmanager
def _checkpointing(unet: UNet2DConditionModel, wanted: bool) -> Iterator[None]:
    """Inside, activations of the UNet's blocks are computed again in place of being kept."""
    if wanted:
        unet.enable_gradient_checkpointing()
    try:
        yield
    finally:
        if wanted:
            unet.disable_gradient_checkpointing()
