"""Loss and health of a run, kept on the device between looks."""

from collections.abc import Sequence

import torch
from torch import Tensor

from core.errors import NonFiniteLoss


class Watch:
    def __init__(self, device: torch.device, terms: Sequence[str] = ()) -> None:
        """``terms``: names of the loss's parts."""
        self.terms = tuple(terms)
        self.total = torch.zeros(1 + len(self.terms), device=device)
        self.seen = 0
        self._first_bad = torch.tensor(-1, device=device)

    @property
    def bad(self) -> Tensor:
        """True from the first bad step on, a scalar."""
        return self._first_bad >= 0

    def see(self, step: int, told: Tensor, norm: Tensor) -> None:
        """What a step told of its loss (``Loss.told``), and the norm of its gradient, a scalar;
        on the device."""
        now_bad = ~(told[0].isfinite() & norm.isfinite()) & ~self.bad
        self._first_bad = torch.where(now_bad, step, self._first_bad)
        self.total += told
        self.seen += 1

    def check(self) -> None:
        """Waits for the device. Raises NonFiniteLoss, naming the step, if one was bad."""
        first_bad = int(self._first_bad.item())
        if first_bad >= 0:
            raise NonFiniteLoss(
                f"loss or gradient is not finite at step {first_bad + 1}: "
                "lower `learning_rate`, or raise `warmup_steps`"
            )

    def read(self) -> tuple[float, dict[str, float]]:
        """The mean loss since the last reading and the means of its terms. Waits and raises as
        ``check`` does."""
        loss, *terms = (self.total / self.seen).tolist()
        self.check()
        self.total.zero_()
        self.seen = 0
        return loss, dict(zip(self.terms, terms, strict=True))
