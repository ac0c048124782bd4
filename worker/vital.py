"""Threads that a worker cannot do without."""

import logging
import os
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)


class VitalThread(threading.Thread):
    """When it fails, the whole process ends: half a worker would keep its jobs and do nothing.

    The locks and the runner go with the process, so its jobs are given back at once, and the
    supervisor starts another.
    """

    def __init__(self, work: Callable[[], None], name: str) -> None:
        super().__init__(target=work, name=name, daemon=True)

    def run(self) -> None:
        try:
            super().run()
        except BaseException:
            log.exception("the %s thread failed: this worker ends", self.name)
            os._exit(1)
