"""Where the numerics meet the frames: a job's files in, its recipe's reports out."""

from collections.abc import Generator
from pathlib import Path

import torch

from core import bases
from core.diffusion import components
from core.diffusion.components import Components
from core.inference import engine
from core.nano import student
from core.specs import FineTuneSpec, GenerateSpec, Precision
from core.training import dreambooth
from core.training.precision import base_dtype
from core.training.report import StepReport
from worker.device import Device
from worker.frames import BaseFolder, Done, Picture, Report, Run, Word


class Bench:
    """One device and the base model that is loaded on it, kept between jobs."""

    def __init__(self, device: Device) -> None:
        # pinned before exec: the one card that this process sees is its first
        self.device = torch.device("cpu" if device.name == "cpu" else "cuda:0")
        self._threads = torch.get_num_threads()
        self._resident: tuple[str, torch.dtype, Components] | None = None

    def words(self, run: Run) -> Generator[Word]:
        """What the job's recipe reports, and ``Done`` at last. May be closed between any two."""
        if run.kind == "fine_tune":
            yield from self._fine_tune(run, FineTuneSpec.model_validate(run.spec))
        else:
            yield from self._generate(run, GenerateSpec.model_validate(run.spec))

    def _fine_tune(self, run: Run, spec: FineTuneSpec) -> Generator[Word]:
        yield Report(step=0, steps=1, message="loading the base model")
        base = self._load(run.base, spec.precision)
        pictures = [Path(path) for path in run.pictures]
        report: StepReport | None = None
        for report in dreambooth.train(spec, base, pictures, Path(run.out)):
            yield from _training_words(report)
        assert report is not None, "training reports at least its end"
        yield Done(outputs={role: str(path) for role, path in report.outputs.items()})

    def _generate(self, run: Run, spec: GenerateSpec) -> Generator[Word]:
        yield Report(step=0, steps=1, message="loading the base model")
        base = self._load(run.base, spec.precision)
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
        folder = Path(base.folder)
        if base.id == "nano-ssd-1b" and base.embedded:
            student.build(bases.NANO_SDXL, folder)
        loaded = components.load(folder, device=self.device, dtype=dtype)
        self._resident = (base.id, dtype, loaded)
        return loaded


def _training_words(report: StepReport) -> Generator[Word]:
    yield Report(
        step=report.step,
        steps=report.steps,
        message=report.message,
        loss=report.loss,
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
