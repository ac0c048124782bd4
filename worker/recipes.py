"""Where the numerics meet the frames: a job's files in, its recipe's reports out."""

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from core import bases, estimate
from core.config import GIB, Settings
from core.diffusion import components
from core.diffusion.components import Components
from core.diffusion.identity import device_name
from core.errors import Interrupted
from core.files.roll import Roll
from core.footprints import is_counted
from core.inference.engine import Engine
from core.inference.lora_shelf import LoraShelf
from core.inference.request import Failure, Lora, Progress, Request, Start
from core.inference.residents import Residents
from core.specs import SPECS, DistillSpec, GenerateSpec, Precision
from core.training import distill, fine_tune, memory
from core.training.cache import Cache
from core.training.data import Source
from core.training.precision import base_dtype
from core.training.report import StepReport
from worker import listing
from worker.device import parse_pinned
from worker.failures import failure_of, sticks
from worker.frames import (
    BaseFolder,
    Checkpoint,
    Done,
    Note,
    Picture,
    Ready,
    Report,
    Run,
    Snapshot,
    Word,
)

log = logging.getLogger(__name__)

_ROOM_SHARE = 0.8
"""Of what is free, for the rows of a batch."""


class Bench:
    """One device and the bases that are loaded on it, kept between jobs."""

    def __init__(self, settings: Settings, tell_held: Callable[[list[str]], None]) -> None:
        """``tell_held`` hears the ids of the bases in memory whenever they change."""
        # pinned before exec: the one card that this process sees is its first
        self.device = torch.device("cpu" if parse_pinned(settings.device).is_cpu else "cuda:0")
        self._tell_held = tell_held
        self._threads = torch.get_num_threads()
        self._shelf = LoraShelf()
        self._residents = Residents(self._budget_bytes(settings), self._engine)

    def check(self) -> None:
        """A short self-test: small whole numbers, whose products are exact on every device.

        Raises:
            RuntimeError: the device computes wrongly, or not at all.
        """
        ones = torch.ones(256, 256, device=self.device)
        counts = torch.arange(256.0, device=self.device).expand(256, 256)
        if not torch.equal(ones @ counts, 256 * counts):
            raise RuntimeError(f"{device_name(self.device)} fails at a product of small numbers")

    def ready(self) -> Ready:
        return Ready(chip=device_name(self.device), memory_bytes=memory.total_bytes(self.device))

    def warm(self, settings: Settings) -> None:
        """Loads what the operator wants to be there before the first request."""
        for base_id in settings.warm:
            folder = bases.folder_here(base_id, settings)
            if folder is None:
                log.warning("'%s' of STILLROOM_WARM is not on this disk", base_id)
                continue
            embedded = folder.parent == bases.EMBEDDED
            try:
                self._load(BaseFolder(id=base_id, folder=str(folder), embedded=embedded), "auto")
            except Exception as error:
                if sticks(error):
                    raise
                why = f"{type(error).__name__}: {error}"
                log.warning("'%s' of STILLROOM_WARM could not be loaded: %s", base_id, why)

    def train(self, run: Run) -> Generator[Word]:
        """What the job's recipe reports, and ``Done`` at last. May be closed between any two."""
        spec = SPECS[run.kind].model_validate(run.spec)
        assert not isinstance(spec, GenerateSpec), "that is drawn"
        assert run.pictures, "a training has some"
        sources = [Source(*listed) for listed in listing.read(Path(run.pictures))]
        yield _loading(spec.count_steps(len(sources)))
        base = self._load(run.base, spec.precision, alone=True).components
        if run.base.unet:  # it may have been loaded from the folder of a job that is gone
            base = replace(base, unet_folder=Path(run.base.unet))
        out = Path(run.out)
        how: dict[str, Any] = {
            "cache": Cache(
                Path(run.cache),
                links=out / "links",
                roll=Roll(Path(run.roll)) if run.roll else None,
            ),
            "start": _start(run),
            "checkpoints": [Path(run.checkpoint)] if run.checkpoint else [],
            "first_rung": run.first_rung,
        }
        training = (
            distill.train(spec, base, sources, out, **how)
            if isinstance(spec, DistillSpec)
            else fine_tune.train(spec, base, sources, out, **how)
        )
        for report in training:
            try:
                yield from _training_words(report)
            except Interrupted as interrupted:
                yield from _training_words(training.throw(interrupted))
                raise
        yield Done(outputs={role: str(path) for role, path in report.outputs.items()})

    def draw(
        self, runs: Sequence[Run], is_wanted: Callable[[int], bool]
    ) -> Iterator[tuple[int, Word]]:
        """Words about drawings of one base and precision, by their place among ``runs``."""
        requests = [_request(run) for run in runs]
        for place, request in enumerate(requests):
            yield place, _loading(request.count * request.spec.denoising_steps)
        engine = self._load(runs[0].base, requests[0].spec.precision)
        failed: set[int] = set()
        for told in engine.draw(requests, is_wanted):
            if isinstance(told, Failure):
                failed.add(told.request)
                yield told.request, failure_of(told.error)
            else:
                yield from ((told.request, word) for word in _drawing_words(told, requests))
        for place in range(len(runs)):
            if place not in failed:
                yield place, Done()

    def _load(self, base: BaseFolder, precision: Precision, *, alone: bool = False) -> Engine:
        """``alone``: a training needs all the room there is."""
        dtype = base_dtype(precision, self.device)
        # nano's matrices are so small that a second thread costs more than it brings: a training
        # step takes 0.17 s with two and 0.13 s with one
        torch.set_num_threads(1 if base.embedded else self._threads)
        name, folder = (base.id, base.folder, dtype), Path(base.folder)
        unet_folder = Path(base.unet) if base.unet else None
        if alone:
            self._residents.keep_only(name)
        engine = self._residents.take(
            name,
            lambda: components.count_weights(folder, unet_folder) * dtype.itemsize,
            lambda: components.load(
                folder, device=self.device, dtype=dtype, unet_folder=unet_folder
            ),
        )
        self._tell_held(self._residents.ids)
        return engine

    def _engine(self, loaded: Components) -> Engine:
        shape = components.shape_of(loaded)

        def count_rows(spec: GenerateSpec, chunks: int, lora_bytes: int) -> int:
            if not is_counted(shape):
                return estimate.MAX_ROWS
            sides = 2 if spec.guidance > 1 else 1
            on_gpu = self.device.type == "cuda"
            drawn_bytes = estimate.drawn_bytes(spec, shape, on_gpu=on_gpu, chunks=chunks)
            row_bytes = drawn_bytes + sides * lora_bytes
            return max(1, int(_ROOM_SHARE * memory.free_bytes(self.device)) // row_bytes)

        def let_others_go() -> None:
            self._residents.keep_only_with(loaded)
            self._tell_held(self._residents.ids)

        return Engine(loaded, self._shelf, count_rows, let_others_go)

    def _budget_bytes(self, settings: Settings) -> int:
        """For bases: what the operator says, or half of the memory; the rest is for drawing."""
        if settings.resident_bytes is not None:
            return settings.resident_bytes
        return (memory.total_bytes(self.device) or 8 * GIB) // 2


def _loading(steps: int) -> Report:
    return Report(step=0, steps=steps, message="loading the base model")


def _request(run: Run) -> Request:
    spec = GenerateSpec.model_validate(run.spec)
    loras = [Lora(Path(lora.path), lora.sha256, lora.weight) for lora in run.loras]
    start = run.start_picture
    picture = Start(Path(start.path), start.sha256) if start else None
    return Request(spec, loras, Path(run.out), picture)


def _drawing_words(told: Progress, requests: Sequence[Request]) -> Iterator[Word]:
    count = requests[told.request].count
    yield Report(
        step=told.step, steps=told.steps, message=f"drawing {told.at_once} of {count} pictures"
    )
    if told.picture:
        yield Picture(
            role="image",
            path=str(told.picture.path),
            prompt=told.picture.prompt,
            seed=told.picture.seed,
            index=told.picture.index,
        )


def _start(run: Run) -> Path | None:
    """What a training begins with."""
    if run.start_base:
        return Path(run.start_base.unet or f"{run.start_base.folder}/unet")
    return Path(run.start) if run.start else None


def _training_words(report: StepReport) -> Generator[Word]:
    if report.note:
        yield Note(text=report.note)
        return
    if report.checkpoint:
        yield Checkpoint(step=report.step, path=str(report.checkpoint))
        return
    if report.snapshot:
        yield Snapshot(step=report.step, path=str(report.snapshot))
        return
    yield Report(
        step=report.step,
        steps=report.steps,
        message=report.message,
        loss=report.loss,
        loss_step=None if report.loss is None else report.step,
        terms=dict(report.terms) or None,
        learning_rate=report.learning_rate,
        seconds_per_step=report.seconds_per_step,
    )
    for sample in report.samples:
        yield Picture(
            role="sample",
            path=str(sample.path),
            prompt=sample.prompt,
            seed=sample.seed,
            step=sample.step,
        )
