"""Training in sittings: saved every few minutes, gone on with from the last save, to the same end.

A step must draw what it needs from its own number, so that it does not matter when it is taken.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from core.nano.recipe import checkpoint
from core.training.average import Average

SAVE_SECONDS = 300
MAX_GRADIENT_NORM = 1.0
MEMORY = 100  # steps that the loss which is told is about a mean of


@dataclass(frozen=True)
class Stage:
    """What is trained, by what, and where it stays between sittings."""

    name: str
    modules: dict[str, nn.Module]
    optimizer: torch.optim.Optimizer
    average: Average | None
    path: Path

    def run(
        self, loss_of: Callable[[int], Tensor], rate_of: Callable[[int], float], steps: int
    ) -> Iterator[str]:
        """Takes the steps that are left; yields a line at each save, of which the last is the end.

        Args:
            loss_of: a step's loss, a scalar with a graph.
            rate_of: a step's learning rate.
            steps: in all sittings together.
        """
        counts = self._load()
        mean, seconds = counts.get("mean", 0.0), counts.get("seconds", 0.0)
        began = saved = time.monotonic()
        for step in range(int(counts.get("step", 0)), steps):
            loss = self._step(step, loss_of, rate_of)
            mean += (loss - mean) / min(step + 1, MEMORY)
            now = time.monotonic()
            if now - saved > SAVE_SECONDS or step + 1 == steps:
                spent = seconds + now - began
                self._save(step=step + 1, seconds=spent, mean=mean)
                saved = now
                yield f"{self.name}: step {step + 1} of {steps}, {spent:.0f} s, loss {mean:.4f}"

    def _step(
        self, step: int, loss_of: Callable[[int], Tensor], rate_of: Callable[[int], float]
    ) -> float:
        (group,) = self.optimizer.param_groups
        group["lr"] = rate_of(step)
        loss = loss_of(step)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(group["params"], MAX_GRADIENT_NORM)
        self.optimizer.step()
        if self.average:
            self.average.update(step)
        return loss.item()

    def _load(self) -> dict[str, float]:
        return checkpoint.load(self.path, self.modules, self.optimizer, self._kept())

    def _save(self, **counts: float) -> None:
        checkpoint.save(self.path, self.modules, self.optimizer, self._kept(), **counts)

    def _kept(self) -> dict[str, Tensor]:
        tensors = self.average.tensors if self.average else []
        return {str(number): tensor for number, tensor in enumerate(tensors)}
