"""How often to save: what a save costs against what a crash would."""

import time

LEAST_SECONDS = 60.0
MOST_SECONDS = 20 * 60.0
COSTS = 50
"""Times as long as a save took is worked before the next: saving then takes 2 % of the time."""


class Pace:
    def __init__(self, every_steps: int | None) -> None:
        """``every_steps`` None: by the clock."""
        self._every_steps = every_steps
        self._saved_at = time.monotonic()
        self._pause_seconds = LEAST_SECONDS

    def is_due(self, step: int) -> bool:
        """After ``step`` steps."""
        if self._every_steps:
            return step % self._every_steps == 0
        return time.monotonic() - self._saved_at >= self._pause_seconds

    def saved(self, began: float) -> None:
        """A save has ended that began at ``began``, by the monotonic clock."""
        self._saved_at = time.monotonic()
        cost_seconds = self._saved_at - began
        self._pause_seconds = min(MOST_SECONDS, max(LEAST_SECONDS, COSTS * cost_seconds))
