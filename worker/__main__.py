"""`python -m worker`: the worker of one device.

Its runner begins first: torch takes seconds to import, and all else here is imported meanwhile.
"""

import logging
import os
import sys

from core import log as logs
from core.config import Settings
from core.tether import die_with_parent
from worker.device_lock import DeviceTaken
from worker.quarters import Quarters

log = logging.getLogger(__name__)


def main() -> None:
    die_with_parent()
    settings = Settings()
    logs.configure(settings.log_level)
    settings.prepare()
    try:
        quarters = Quarters.take(settings)
    except DeviceTaken as error:
        sys.exit(str(error))
    quarters.link.start()
    try:
        from worker.app import run  # imports Celery and the database's library

        run(settings, quarters)
    except Exception:
        log.exception("this worker cannot go on")
        os._exit(1)  # whatever threads there are


if __name__ == "__main__":
    main()
