"""The Celery worker of one device. Its only task is to look: all truth is in the database.

Celery brings the process, its signals, the thread that works and, on Redis, the bell. Early
acknowledgement, no results, no retries, no remote control: losing a message costs nothing.
"""

import logging
import os
import sys
import threading
import warnings
from typing import Any

from celery import Celery, signals
from celery.exceptions import SecurityWarning

from core import log as logs
from core.config import Settings
from core.jobs.bell import LOOK, bell_config
from core.tether import die_with_parent
from worker.station import DeviceTaken, Station

log = logging.getLogger(__name__)

# Celery warns root of pickled messages; ours are JSON and carry nothing, and containers run as root
warnings.filterwarnings("ignore", category=SecurityWarning)

MEMORY_POLL_SECONDS = 0.02
"""How often the in-memory transport looks. Its default is a whole second."""

settings = Settings()
app = Celery("stillroom", broker=settings.broker_url.get_secret_value() or "memory://localhost")
app.conf.update(
    bell_config(),
    task_acks_late=False,
    worker_prefetch_multiplier=1,
    worker_enable_remote_control=False,
    worker_send_task_events=False,
    worker_hijack_root_logger=False,
)
if settings.embedded:
    app.conf.broker_transport_options = {"polling_interval": MEMORY_POLL_SECONDS}

_station: Station | None = None


@app.task(name=LOOK)
def look() -> None:
    assert _station is not None, "Celery takes messages only after worker_init"
    _station.work()


def ring_self() -> None:
    """Wakes this worker's own drain, and with Redis no other's."""
    if settings.embedded:
        app.send_task(LOOK)
    elif _station is not None:
        threading.Thread(target=_station.work, name="drain", daemon=True).start()


@signals.setup_logging.connect
def _log_our_way(**_: Any) -> None:
    logs.configure(settings.log_level)


@signals.worker_init.connect
def _prepare(**_: Any) -> None:
    global _station
    die_with_parent()
    settings.prepare()
    try:
        _station = Station(settings, ring_self)
    except DeviceTaken as error:
        sys.exit(str(error))
    except Exception:  # Celery would log it and go on with no station
        log.exception("this worker cannot start")
        os._exit(1)


@signals.worker_ready.connect
def _start(**_: Any) -> None:
    assert _station is not None
    _station.start()


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
