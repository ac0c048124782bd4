"""Loss and health of a run, kept on the device between looks."""

import torch
from torch import Tensor

from core.errors import NonFiniteLoss


class Watch:
    def __init__(self, device: torch.device) -> None:
        self.total = torch.zeros((), device=device)
        self.seen = 0
        self._first_bad = torch.tensor(-1, device=device)

    @property
    def bad(self) -> Tensor:
        """True from the first bad step on, a scalar."""
        return self._first_bad >= 0

    def see(self, step: int, loss: Tensor, norm: Tensor) -> None:
        """A step's loss and the norm of its gradient, scalars on the device."""
        now_bad = ~(loss.isfinite() & norm.isfinite()) & ~self.bad
        self._first_bad = torch.where(now_bad, step, self._first_bad)
        self.total += loss
        self.seen += 1

    def check(self) -> None:
        """Waits for the device. Raises NonFiniteLoss, naming the step, if one was bad."""
        first_bad = int(self._first_bad.item())
        if first_bad >= 0:
            raise NonFiniteLoss(
                f"loss or gradient is not finite at step {first_bad + 1}: "
                "lower `learning_rate`, or raise `warmup_steps`"
            )

    def read(self) -> float:
        """The mean loss since the last reading. Waits and raises as ``check`` does."""
        mean = (self.total / self.seen).item()
        self.check()
        self.total.zero_()
        self.seen = 0
        return mean
