"""Where the numerics meet the frames: a job's files in, its recipe's reports out."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch

from core.diffusion import components
from core.diffusion.components import Components
from core.diffusion.identity import device_name
from core.errors import Interrupted
from core.inference import engine
from core.specs import SPECS, DistillSpec, FineTuneSpec, GenerateSpec, Precision
from core.training import distill, fine_tune, memory
from core.training.cache import Cache
from core.training.data import Source
from core.training.precision import base_dtype
from core.training.report import StepReport
from worker.device import Device
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


class Bench:
    """One device and the base model that is loaded on it, kept between jobs."""

    def __init__(self, device: Device) -> None:
        # pinned before exec: the one card that this process sees is its first
        self.device = torch.device("cpu" if device.is_cpu else "cuda:0")
        self._threads = torch.get_num_threads()
        self._resident: tuple[str, torch.dtype, Components] | None = None

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

    def words(self, run: Run) -> Generator[Word]:
        """What the job's recipe reports, and ``Done`` at last. May be closed between any two."""
        spec = SPECS[run.kind].model_validate(run.spec)
        yield Report(step=0, steps=1, message="loading the base model")
        base = self._load(run.base, spec.precision)
        if isinstance(spec, GenerateSpec):
            yield from self._generate(run, spec, base)
        else:
            yield from self._train(run, spec, base)

    def _train(
        self, run: Run, spec: FineTuneSpec | DistillSpec, base: Components
    ) -> Generator[Word]:
        sources = [Source(Path(picture.path), picture.caption) for picture in run.pictures]
        out = Path(run.out)
        how: dict[str, Any] = {
            "cache": Cache(Path(run.cache), links=out / "links"),
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

    def _generate(self, run: Run, spec: GenerateSpec, base: Components) -> Generator[Word]:
        loras = [(Path(lora.path), lora.weight) for lora in run.loras]
        for report in engine.generate(spec, base, loras, Path(run.out)):
            yield Report(
                step=report.image * report.steps + report.step,
                steps=report.images * report.steps,
                message=f"drawing picture {report.image + 1} of {report.images}",
            )
            if report.picture:
                yield Picture(
                    role="image",
                    path=str(report.picture.path),
                    prompt=report.picture.prompt,
                    seed=report.picture.seed,
                )
        yield Done()

    def _load(self, base: BaseFolder, precision: Precision) -> Components:
        dtype = base_dtype(precision, self.device)
        if self._resident and self._resident[:2] == (base.id, dtype):
            return self._resident[2]
        # nano's matrices are so small that a second thread costs more than it brings: a training
        # step takes 0.17 s with two and 0.13 s with one
        torch.set_num_threads(1 if base.embedded else self._threads)
        self._resident = None  # first out, then in: two may not fit
        loaded = components.load(
            Path(base.folder),
            device=self.device,
            dtype=dtype,
            unet_folder=Path(base.unet) if base.unet else None,
        )
        self._resident = (base.id, dtype, loaded)
        return loaded


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
