"""`python -m worker.supervisor`, whose workers have the light runner and a clock to be set."""

import os
import sys

from tests.support.shifted_clock import VARIABLE
from worker import supervisor
from worker.device import Device
from worker.supervisor import Child

_real_child = supervisor.worker_child


def worker_child(pinned: Device) -> Child:
    child = _real_child(pinned)
    child.command[-1] = "tests.support.light_worker"
    return child


def api_child() -> Child:
    return Child("api", [sys.executable, "-m", "tests.support.light_api"], {})


if __name__ == "__main__":
    supervisor.worker_child = worker_child
    if VARIABLE in os.environ:
        supervisor.api_child = api_child
    supervisor.main()
