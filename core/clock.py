"""The clock that leases are measured with: never set, never stopped, the same on this host only."""

import time


def boot_seconds() -> float:
    """Seconds since boot, sleep included: a laptop that wakes knows how long it was away."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
