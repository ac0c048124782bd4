"""The Celery worker of one device. Its only task is to look: all truth is in the database.

Celery brings the process, its signals, the thread that works and, on Redis, the bell. Early
acknowledgement, no results, no retries, no remote control: losing a message costs nothing.
"""

import threading
import warnings
from typing import Any

from celery import Celery, signals
from celery.bootsteps import StartStopStep
from celery.exceptions import SecurityWarning

from core.config import Settings
from core.jobs.bell import LOOK, bell_config
from worker.quarters import Quarters
from worker.station import Station

# Celery warns root of pickled messages; ours are JSON and carry nothing, and containers run as root
warnings.filterwarnings("ignore", category=SecurityWarning)

MEMORY_POLL_SECONDS = 0.02
"""How often the in-memory transport looks. Its default is a whole second."""

app = Celery("stillroom")
app.conf.update(
    bell_config(),
    task_acks_late=False,
    worker_prefetch_multiplier=1,
    worker_enable_remote_control=False,
    worker_send_task_events=False,
    worker_hijack_root_logger=False,
)

_station: Station | None = None


class Begin(StartStopStep):
    """Once Celery hears signals, which must not kill what has begun, and before it looks for a
    broker, which may be away: ``worker_init`` is too early, ``worker_ready`` too late."""

    def start(self, _worker: object) -> None:
        assert _station is not None
        _station.start()


app.steps["worker"].add(Begin)


def run(settings: Settings, quarters: Quarters) -> None:
    """To the end of this worker."""
    global _station
    broker_url = settings.broker_url.get_secret_value() or "memory://localhost"
    app.conf.update(broker_url=broker_url)
    if settings.embedded:
        app.conf.broker_transport_options = {"polling_interval": MEMORY_POLL_SECONDS}
    _station = Station(settings, quarters, ring_self)
    # one thread may be at a job for hours: the other one hears the bell meanwhile
    options = ["--pool", "threads", "--concurrency", "2", "--hostname", f"{settings.device}@%h"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    app.worker_main(["--quiet", "worker", *options, *quiet])


@app.task(name=LOOK)
def look() -> None:
    assert _station is not None, "Celery takes messages only when run() has begun"
    _station.work()


def ring_self() -> None:
    """Wakes this worker's own drain, and with Redis no other's."""
    if _station is None:
        return
    if _station.settings.embedded:
        app.send_task(LOOK)
    else:
        threading.Thread(target=_station.work, name="drain", daemon=True).start()


@signals.setup_logging.connect
def _log_our_way(**_: Any) -> None:
    """Celery leaves logging alone: it is configured."""


@signals.worker_shutting_down.connect
def _stop(**_: Any) -> None:
    # Celery sends this from inside its signal handler, which may have interrupted anything: what
    # takes locks is done by a thread.
    threading.Thread(target=_end_soon, name="stop", daemon=True).start()


def _end_soon() -> None:
    if _station is not None:
        _station.stop()
    # Celery's loop sees the signal after its next message, and reads one more before it ends;
    # without any, each of the two waits out two seconds.
    ring_self()
    ring_self()


@signals.worker_shutdown.connect
def _close(**_: Any) -> None:
    if _station is not None:
        _station.close()
