"""One run of steps: gone on from a checkpoint, saved now and then, sampled on the way."""

import logging
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from core.errors import Interrupted, WrongCheckpoint
from core.specs import TrainingSpec
from core.training import checkpoint, loop
from core.training.checkpoint import Damaged
from core.training.loss import Loss
from core.training.origin import Origin
from core.training.pace import Pace
from core.training.report import StepReport
from core.training.samples import Studio
from core.training.trainee import Trainee

log = logging.getLogger(__name__)

KEPT_CHECKPOINTS = 2


class Course(Protocol):
    """What is learnt: how much a micro-batch errs, and how the outcome is shown and kept."""

    @property
    def spec(self) -> TrainingSpec: ...

    def micro_loss(self, step: int, micro: int) -> Loss: ...

    def shown(self) -> AbstractContextManager[None]:
        """Inside, what was learnt is as it will be used."""

    def snapshot(self, folder: Path, step: int) -> Path:
        """Writes what was learnt by ``step``, as others load it."""


@dataclass
class Run:
    """``losses`` are those read so far, with their steps; ``exact`` turns false when the run goes
    on with another arithmetic than it was begun with."""

    course: Course
    trainee: Trainee
    studio: Studio | None
    origin: Origin
    out: Path
    losses: list[tuple[int, float]] = field(default_factory=list)
    exact: bool = True
    resumed_from: int = 0

    @property
    def spec(self) -> TrainingSpec:
        return self.course.spec

    def go_on_from(self, folders: Sequence[Path]) -> None:
        """Takes up the first checkpoint that is whole; none at all is a start from the beginning.

        Raises:
            WrongCheckpoint: it is one of another lesson.
        """
        for folder in folders:
            try:
                tensors, facts = checkpoint.read(folder)
            except Damaged as damaged:
                log.warning("passed over: %s", damaged)
                continue
            if facts["lesson"] != self.origin.lesson:
                raise WrongCheckpoint(
                    f"The checkpoint {folder.name} is of a run with other pictures, another base "
                    "or another spec: only the number of steps may differ."
                )
            self.trainee.restore(tensors, facts["trainee"])
            self.losses = [(step, loss) for step, loss in facts["losses"]]
            self.exact = facts["exact"] and facts["arithmetic"] == self.origin.arithmetic
            self.resumed_from = self.trainee.step
            return

    def learn(self, steps: int) -> Generator[StepReport, None, StepReport]:
        """Takes the steps that are left; yields at each, and at each step of a sample. Returns the
        last step's report."""
        pace = Pace(self.spec.checkpoint_every)
        quiet = StepReport(self.trainee.step, steps, "training")
        if self.resumed_from:
            # a step is saved before it is shown
            yield from self._show(quiet)
        for progress in loop.run(self.trainee, self.course.micro_loss, self.spec, steps):
            report = StepReport(
                step=progress.step,
                steps=steps,
                message="training",
                loss=progress.loss,
                terms=progress.terms,
                learning_rate=progress.learning_rate,
                seconds_per_step=progress.seconds_per_step,
            )
            if progress.loss is not None:
                self.losses.append((progress.step, progress.loss))
            quiet = replace(report, loss=None, terms={})
            try:
                yield report
                if pace.is_due(progress.step) or progress.step == steps:
                    began = time.monotonic()
                    folder = self._save()
                    pace.saved(began)
                    yield replace(quiet, message="saving", checkpoint=folder)
                yield from self._show(quiet)
            except Interrupted:
                yield replace(quiet, message="saving", checkpoint=self._save())
                raise
        return quiet

    def _show(self, report: StepReport) -> Iterator[StepReport]:
        """What a step has learnt, and pictures of it, where the spec wants them."""
        spec, step = self.spec, report.step
        last = step == report.steps
        keeps = spec.keep_every is not None and step % spec.keep_every == 0 and not last
        samples = spec.sample is not None and (keeps or last or step % spec.sample.every == 0)
        with self.trainee.shown(), self.course.shown():
            if keeps:
                path = self.course.snapshot(self.out / "snapshots", step)
                yield replace(report, message="saving", snapshot=path)
            if samples:
                assert self.studio is not None, "there is one where samples are wanted"
                yield from self.studio.draw(report, self.out / "samples")

    def _save(self) -> Path:
        self.trainee.watch.check()  # weights of a bad step are not worth keeping
        tensors, facts = self.trainee.state()
        folder = self.out / "checkpoints" / f"step-{self.trainee.step:08d}"
        checkpoint.write(
            folder,
            tensors,
            {
                "lesson": self.origin.lesson,
                "arithmetic": self.origin.arithmetic,
                "exact": self.exact,
                "losses": self.losses,
                "trainee": facts,
            },
        )
        checkpoint.prune(folder.parent, KEPT_CHECKPOINTS)
        return folder
