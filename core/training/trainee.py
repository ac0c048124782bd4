"""What a run trains, with all that changes from step to step: what a checkpoint has to hold."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from core.specs import TrainingSpec
from core.training import optimizer
from core.training.average import Average
from core.training.watch import Watch

Facts = dict[str, float]
"""Numbers of a state that are not tensors, by name."""


@dataclass
class Trainee:
    """Weights are float32 leaves; ``step`` is how many steps are done. ``scaler`` keeps gradients
    above what half precision can hold; for other precisions it does nothing."""

    weights: Mapping[str, nn.Parameter]
    optimizer: Optimizer
    average: Average | None
    watch: Watch
    scaler: GradScaler
    step: int = 0

    @property
    def parameters(self) -> list[nn.Parameter]:
        return list(self.weights.values())

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Inside, the weights are those to show: the average where there is one."""
        with self.average.in_place() if self.average else nullcontext():
            yield

    def state(self) -> tuple[dict[str, Tensor], Facts]:
        """Everything, by name; the tensors are the very ones, not copies."""
        tensors = {f"weight.{name}": weight.detach() for name, weight in self.weights.items()}
        tensors["watch.total"] = self.watch.total
        facts: Facts = {"step": self.step, "watch.seen": self.watch.seen}
        if self.average:
            tensors |= _named("average", self.weights, self.average.tensors)
        facts |= {f"scaler.{name}": value for name, value in self.scaler.state_dict().items()}
        for number, state in self.optimizer.state_dict()["state"].items():
            for name, value in state.items():
                key = f"optimizer.{number}.{name}"
                if isinstance(value, Tensor):
                    tensors[key] = value
                else:
                    facts[key] = value
        return tensors, facts

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor], facts: Facts) -> None:
        """Becomes what ``state`` told; of the same weights, optimizer and average."""
        self.step, self.watch.seen = int(facts["step"]), int(facts["watch.seen"])
        self.watch.total.copy_(tensors["watch.total"])
        for name, weight in self.weights.items():
            weight.copy_(tensors[f"weight.{name}"])
        if self.average:
            for name, tensor in zip(self.weights, self.average.tensors, strict=True):
                tensor.copy_(tensors[f"average.{name}"])
        if self.scaler.is_enabled():
            names = self.scaler.state_dict()
            self.scaler.load_state_dict({name: facts[f"scaler.{name}"] for name in names})
        state: dict[int, dict[str, object]] = {}
        for key, value in {**tensors, **facts}.items():
            if key.startswith("optimizer."):
                _, number, name = key.split(".", 2)
                state.setdefault(int(number), {})[name] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})


def _named(prefix: str, names: Mapping[str, object], tensors: list[Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in zip(names, tensors, strict=True)}


def enrol(
    weights: Mapping[str, nn.Parameter],
    spec: TrainingSpec,
    dtype: torch.dtype = torch.float32,
    terms: Sequence[str] = (),
) -> Trainee:
    """A trainee at step 0, with the optimizer and the average that the spec asks for.

    Args:
        weights: what is learnt, by name.
        spec: optimizer and average.
        dtype: what the rest is computed in.
        terms: names of the loss's parts.
    """
    parameters = list(weights.values())
    device = parameters[0].device
    return Trainee(
        weights=weights,
        optimizer=optimizer.build(parameters, spec),
        average=None if spec.ema is None else Average(parameters, spec.ema),
        watch=Watch(device, terms),
        scaler=GradScaler(device.type, enabled=dtype == torch.float16),
    )
