"""A smaller UNet from a larger one and captioned pictures: prepare, learn, export, tell how good.

What it takes of memory is told by core.estimate. Writes the student's UNet in two formats,
``report.json`` with the report card, its sheet, the pictures drawn on the way, and checkpoints,
from any of which the run goes on to the same end.
"""

import json
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from core.diffusion import noise, single_file, unet_folder
from core.diffusion.components import Components, shape_of
from core.diffusion.offload import moved
from core.errors import DatasetNotCaptioned
from core.files import atomic
from core.ladder import Rung
from core.layouts import find_layout
from core.specs import DistillSpec, SampleSpec
from core.training import beginnings, card, fit, samples
from core.training.batches import Batches
from core.training.cache import Cache
from core.training.card import Trio
from core.training.data import Source
from core.training.desk import Desk
from core.training.distillation import Distillation
from core.training.grid import Grid
from core.training.lesson import Lesson
from core.training.origin import origin_of
from core.training.precision import deterministic_algorithms
from core.training.pupil import Pupil
from core.training.report import StepReport
from core.training.run import Run
from core.training.samples import Studio
from core.training.summary import summary
from core.training.trainee import enrol

CPU = torch.device("cpu")
SHEET_PROMPTS = 4
"""Rows of the card's sheet, where the spec names no prompts: captions of what is measured."""


def train(
    spec: DistillSpec,
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
        components: the teacher's, of SDXL's layout. Nothing of it is trained.
        sources: at least one picture, each with a caption.
        out: folder that the files go to.
        cache: of encoded pictures and captions; None: one inside ``out``.
        start: folder of the UNet that the student begins with; None: it is cut out of the teacher.
        checkpoints: of earlier runs of the same lesson, the newest first; the first that is whole
            is gone on from.
        first_rung: of the ladder (core.ladder); those above were too much for the device.

    Raises:
        NonFiniteLoss: names the step.
        ExportMismatch: the UNet that was written is not the one that was trained.
        OutOfMemory: the device has not enough for this rung.
        DatasetNotCaptioned: nobody says what is on a picture.
        WrongCheckpoint: a checkpoint is of another lesson.
        LayoutMismatch: the student does not fit the teacher.
    """
    cache = cache or Cache(out / "cache", links=out / "links")
    advice = "`resolution` or `batch_size`"
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
    ):
        yield from _train(spec, components, sources, out, cache, start, checkpoints, rung)


def _train(
    spec: DistillSpec,
    components: Components,
    sources: Sequence[Source],
    out: Path,
    cache: Cache,
    start: Path | None,
    checkpoints: Sequence[Path],
    rung: Rung,
) -> Iterator[StepReport]:
    now = yield from fit.begin(spec, components.device, rung, pictures=len(sources))
    desk = Desk(rung.split(spec), components, sources, cache, now, rung)
    lesson, studio = yield from _prepare(spec, desk)
    process = noise.forward_process(components.scheduler.config, components.device)
    grid = Grid(lesson, Batches(desk.spec, process, components.device), desk.kept_out)
    with moved(CPU, *desk.idle):
        pupil = Pupil.enter(beginnings.fresh(spec.student, start, components), components)
        course = Distillation(rung.split(spec), grid.batches, components.unet, pupil, lesson)
        run = Run(
            course=course,
            trainee=enrol(pupil.weights, spec, components.dtype, course.terms),
            studio=studio.beside(pupil.unet),
            origin=origin_of(spec, components, sources, start, rung),
            out=out,
        )
        untaught = pupil.probed()
        run.go_on_from(checkpoints)
        with fit.checkpointing(pupil.unet, rung.checkpointing):
            now = yield from run.learn(now.steps)
        now = replace(now, message="checking the export")
        yield now
        with run.trainee.shown():
            made, trained = _export(pupil, components, out, desk.side), pupil.probed()
        pupil.unet.to(CPU)  # it has learnt: room for the two that are compared
        before = beginnings.fresh(spec.student, start, components, components.dtype)
        trio = Trio(
            teacher=components.unet,
            before=before.to(components.device),
            after=unet_folder.read_back(made["unet"], trained, untaught, components.dtype),
        )
        now = replace(now, message="measuring the student")
        marks = yield from _measure(trio, grid, components, studio, out / "samples", now)
    told = {
        "teacher": spec.teacher,
        **summary(run, components, cache, rung, desk.kept_out, now),
        "card": marks,
    }
    made["report"] = out / "report.json"
    atomic.write_text(made["report"], json.dumps(told, indent=2))
    yield replace(now, message="done", outputs=made)


def _prepare(spec: DistillSpec, desk: Desk) -> Generator[StepReport, None, tuple[Lesson, Studio]]:
    """The lesson, and what its pictures are drawn from; with prompts of its own where the spec has
    none."""
    texts = [_text(source) for source in desk.sources]
    numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    lesson = yield from desk.lesson(texts, numbers)
    desk.cache.sweep()
    prompts = dict.fromkeys(texts[picture] for picture in desk.kept_out or lesson.pictures)
    sample = spec.sample or SampleSpec(prompts=list(prompts)[:SHEET_PROMPTS])
    return lesson, samples.studio(sample, desk.components, seed=spec.seed or 0, side=desk.side)


def _measure(
    trio: Trio,
    grid: Grid,
    components: Components,
    studio: Studio,
    folder: Path,
    report: StepReport,
) -> Generator[StepReport, None, dict[str, object]]:
    """The report card, with its sheet as a sample."""
    marks = yield from card.make(trio, grid, report)
    sheet = yield from card.draw(trio, components, studio, folder / "sheet.png", report)
    yield replace(report, samples=(sheet,))
    return marks


def _text(source: Source) -> str:
    """What a picture is learnt with."""
    if source.caption is None:
        raise DatasetNotCaptioned(f"The picture {source.name} has no caption: give it one.")
    return source.caption


def _export(pupil: Pupil, components: Components, out: Path, side: int) -> dict[str, Path]:
    """The student for diffusers, and with all that it needs in one file; by role."""
    (layout,) = find_layout(pupil.weights)
    folder = unet_folder.write(pupil.unet, out / "unet")
    path = out / single_file.file_name(layout)
    single_file.write(path, pupil.weights, components, layout=layout, side=side)
    single_file.check(path, folder)
    return {"unet": folder, "checkpoint": path}
