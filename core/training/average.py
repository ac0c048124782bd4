"""An average of the weights over the steps, the later ones counting more.

It draws better than the weights of any one step. Karras et al., arXiv:2312.02696, on why.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


class Average:
    def __init__(self, weights: Sequence[Tensor], decay: float) -> None:
        """``decay``: what is left of the average at each step."""
        self.tensors = [weight.detach().clone() for weight in weights]
        self._weights = list(weights)
        self._decay = decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After step ``step`` (0-based). Early on the average is shorter, or the start would never
        be forgotten: the decay is min(decay, (1 + step) / (10 + step))."""
        share = 1 - min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.tensors, self._weights, share)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the weights are the average."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def swap(self) -> None:
        """Weights and average change places; nothing is copied."""
        for weight, tensor in zip(self._weights, self.tensors, strict=True):
            weight.data, tensor.data = tensor.data, weight.data
