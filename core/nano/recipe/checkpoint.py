"""Where a training stands, as one safetensors file: weights, the optimizer's moments, the step."""

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn


def save(
    path: Path,
    modules: dict[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    averages: dict[str, Tensor],
    **counts: float,
) -> None:
    """Replaces ``path`` in one move, so that a kill at any time leaves a whole file.

    Args:
        modules: what is trained, by name.
        averages: other tensors to keep, such as an average of the weights.
        counts: numbers to keep, such as the step.
    """
    tensors = _weights(modules) | {f"average.{name}": value for name, value in averages.items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": value for name, value in state.items()}
    aside = path.with_suffix(".part")
    whole = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    save_file(whole, aside, {name: str(count) for name, count in counts.items()})
    aside.replace(path)


def load(
    path: Path,
    modules: dict[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    averages: dict[str, Tensor],
) -> dict[str, float]:
    """Puts back what ``save`` kept and gives its counts; nothing and none where no file is."""
    if not path.exists():
        return {}
    state: dict[int, dict[str, Tensor]] = {}
    with safe_open(path, framework="pt") as file:
        for name, weight in _weights(modules).items():
            weight.data.copy_(file.get_tensor(name))
        for name, average in averages.items():
            average.copy_(file.get_tensor(f"average.{name}"))
        for key in file.keys():  # noqa: SIM118 - not a dict
            if key.startswith("optimizer."):
                _, number, name = key.split(".", 2)
                state.setdefault(int(number), {})[name] = file.get_tensor(key)
        counts = {name: float(count) for name, count in file.metadata().items()}
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return counts


def _weights(modules: dict[str, nn.Module]) -> dict[str, Tensor]:
    return {
        f"{part}.{name}": weight
        for part, module in modules.items()
        for name, weight in module.state_dict(keep_vars=True).items()
    }
