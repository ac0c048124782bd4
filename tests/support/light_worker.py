"""`python -m worker`, whose runner is the light one."""

import sys

from tests.support import shifted_clock, suspended
from worker import link
from worker.__main__ import main

if __name__ == "__main__":
    link.RUNNER = (sys.executable, "-m", "tests.support.light_runner")
    shifted_clock.install()
    suspended.install()
    main()
