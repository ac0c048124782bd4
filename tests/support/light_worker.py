"""The worker's own Celery app, whose runner is the light one."""

import sys

from worker import link

link.RUNNER = (sys.executable, "-m", "tests.support.light_runner")

from tests.support import shifted_clock  # noqa: E402
from worker.app import app  # noqa: E402  # only now, so that it finds that runner

shifted_clock.install()

__all__ = ["app"]
