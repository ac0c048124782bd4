"""Modules out of the device's memory while nobody needs them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def moved(device: torch.device, *modules: nn.Module) -> Iterator[None]:
    """Inside, the modules are on the device; afterwards where they were."""
    homes = [next(module.parameters()).device for module in modules]
    try:
        for module in modules:
            module.to(device)
        yield
    finally:
        for module, home in zip(modules, homes, strict=True):
            module.to(home)
