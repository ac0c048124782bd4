"""How fast a runner goes, and whether it has been silent for too long."""

from collections import deque
from statistics import median

from core.clock import boot_seconds

_MEDIANS = 10
_BEFORE_A_STEP = 6
"""While nobody knows how long a step takes, patience is so many times as long: a large base loads,
and a first step may be slow."""


class Pace:
    """Of one attempt. One thread listens, another may ask."""

    def __init__(self, watchdog_seconds: float) -> None:
        self.watchdog_seconds = watchdog_seconds
        self._step = 0
        self._stepped_at = boot_seconds()
        self._listens_since: float | None = None
        self._steps_seconds: deque[float] = deque(maxlen=50)

    def listen(self) -> None:
        """From now on it is the runner's turn to speak."""
        self._listens_since = boot_seconds()

    def hear(self, step: int | None = None) -> None:
        """A word; ``step`` if it told how far the runner is. While the word is dealt with, nobody
        knows whether the runner is silent: a store may be away for long."""
        at, self._listens_since = boot_seconds(), None
        if step is None or step <= self._step:
            return
        if self._step > 0:
            self._steps_seconds.append((at - self._stepped_at) / (step - self._step))
        self._step, self._stepped_at = step, at

    @property
    def patience_seconds(self) -> float:
        if not self._steps_seconds:
            return _BEFORE_A_STEP * self.watchdog_seconds
        return max(self.watchdog_seconds, _MEDIANS * median(self._steps_seconds))

    def is_hung(self) -> bool:
        since = self._listens_since
        return since is not None and boot_seconds() - since > self.patience_seconds
