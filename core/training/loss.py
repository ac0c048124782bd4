"""What a micro-batch is learnt by, and what is told of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Loss:
    """``total`` is a scalar with a graph. ``terms`` are its parts by name, scalars without one and
    before they are weighed: always the same names in the same order in one run."""

    total: Tensor
    terms: Mapping[str, Tensor] = field(default_factory=dict)

    def told(self) -> Tensor:
        """The total and every term, shape (1 + terms,), float32, on the device."""
        return torch.stack([self.total.detach().float(), *self.terms.values()])
