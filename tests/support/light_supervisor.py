"""`python -m worker.supervisor`, whose workers have the light runner."""

from worker import supervisor
from worker.device import Device
from worker.supervisor import Child

_real_child = supervisor.worker_child


def worker_child(pinned: Device) -> Child:
    child = _real_child(pinned)
    child.command[child.command.index("worker.app")] = "tests.support.light_worker"
    return child


if __name__ == "__main__":
    supervisor.worker_child = worker_child
    supervisor.main()
