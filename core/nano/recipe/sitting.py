"""Training in sittings: saved every few minutes, gone on with from the last save, to the same end.

A step must draw what it needs from its own number, so that it does not matter when it is taken.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from core.training import checkpoint
from core.training.average import Average
from core.training.loss import Loss
from core.training.trainee import Trainee
from core.training.watch import Watch

SAVE_SECONDS = 300
MAX_GRADIENT_NORM = 1.0
MEMORY = 100  # steps that the loss which is told is about a mean of


@dataclass
class Stage:
    """What is trained and the folder that keeps it between sittings."""

    name: str
    trainee: Trainee
    folder: Path
    mean_loss: float = 0.0
    seconds: float = 0.0

    def run(
        self, loss_of: Callable[[int], Tensor], rate_of: Callable[[int], float], steps: int
    ) -> Iterator[str]:
        """Takes the steps that are left; yields a line at each save, of which the last is the end.

        Args:
            loss_of: a step's loss, a scalar with a graph.
            rate_of: a step's learning rate.
            steps: in all sittings together.

        Raises:
            NonFiniteLoss: names the step.
            Damaged: what the last sitting saved is not what is there.
        """
        self._go_on()
        saved = time.monotonic()
        for step in range(self.trainee.step, steps):
            began = time.monotonic()
            loss = self._step(step, loss_of, rate_of)
            self.mean_loss += (loss - self.mean_loss) / min(step + 1, MEMORY)
            now = time.monotonic()
            self.seconds += now - began
            if now - saved > SAVE_SECONDS or step + 1 == steps:
                self._save()
                saved = time.monotonic()
                yield (
                    f"{self.name}: step {step + 1} of {steps}, {self.seconds:.0f} s, "
                    f"loss {self.mean_loss:.4f}"
                )

    def _step(
        self, step: int, loss_of: Callable[[int], Tensor], rate_of: Callable[[int], float]
    ) -> float:
        optimizer = self.trainee.optimizer
        (group,) = optimizer.param_groups
        group["lr"] = rate_of(step)
        loss = loss_of(step)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        norm = nn.utils.clip_grad_norm_(group["params"], MAX_GRADIENT_NORM)
        self.trainee.watch.see(step, Loss(loss).told(), norm)
        optimizer.step()
        if self.trainee.average:
            self.trainee.average.update(step)
        self.trainee.step = step + 1
        mean_loss, _ = self.trainee.watch.read()
        return mean_loss

    def _go_on(self) -> None:
        saves = sorted(self.folder.glob("step-*"))
        if saves:
            tensors, facts = checkpoint.read(saves[-1])
            self.trainee.restore(tensors, facts["trainee"])
            self.mean_loss, self.seconds = facts["mean_loss"], facts["seconds"]

    def _save(self) -> None:
        tensors, trainee = self.trainee.state()
        facts = {"mean_loss": self.mean_loss, "seconds": self.seconds, "trainee": trainee}
        checkpoint.write(self.folder / f"step-{self.trainee.step:08d}", tensors, facts)
        checkpoint.prune(self.folder, kept=1)


def stage(
    name: str,
    weights: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    average: Average | None,
    folder: Path,
) -> Stage:
    """A stage at step 0, on the CPU in full precision."""
    watch, scaler = Watch(torch.device("cpu")), GradScaler("cpu", enabled=False)
    return Stage(name, Trainee(weights, optimizer, average, watch, scaler), folder)
