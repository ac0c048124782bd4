"""The bell: tells idle workers to look, after a commit. It carries nothing and may be lost."""

import logging
import threading
from typing import TYPE_CHECKING, Protocol

from core.config import Settings

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Exchange

log = logging.getLogger(__name__)

LOOK = "stillroom.look"
"""The name of the one Celery task, and of the fanout exchange that carries it to every worker."""

EXPIRES_SECONDS = 60
_CONNECT_SECONDS = 1.0
"""A broker is a neighbour; one that takes longer is away, and workers look by themselves after
five seconds."""
_IMPATIENT = {"max_retries": 1, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.1}
"""One more try after a tenth of a second: later, others have come, or the workers have looked."""


class Bell(Protocol):
    def ring(self) -> None: ...
    def close(self) -> None: ...


class SilentBell:
    """No broker: the workers of this host watch the database file and have seen the commit."""

    def ring(self) -> None:
        pass

    def close(self) -> None:
        pass


class BrokerBell:
    """A fanout message, so that a busy worker cannot swallow the only copy.

    A thread sends it: a broker that is away or says nothing keeps no client waiting, and what was
    committed while a message was on its way is one more message.
    """

    def __init__(self, broker_url: str) -> None:
        self.broker_url = broker_url
        self._app: Celery | None = None
        self._rung = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="bell", daemon=True)
        self._thread.start()

    def ring(self) -> None:
        """Never fails and never waits: workers look by themselves every few seconds."""
        self._rung.set()

    def close(self) -> None:
        """What was rung and not sent yet is left to those looks."""
        self._closing = True
        self._rung.set()

    def _run(self) -> None:
        while True:
            self._rung.wait()
            if self._closing:
                return
            self._rung.clear()
            self._send()

    def _send(self) -> None:
        try:
            self._connected().send_task(
                LOOK,
                exchange=LOOK,
                declare=[fanout()],  # or kombu takes the exchange for a direct one
                routing_key=LOOK,
                expires=EXPIRES_SECONDS,
                retry=False,
            )
        except Exception as error:  # whatever it was, this thread goes on
            log.warning("the broker does not hear the bell: workers will poll: %s", error)

    def _connected(self) -> "Celery":
        if self._app is None:
            from celery import Celery  # a third of a second to import, and only needed here

            self._app = Celery(broker=self.broker_url, set_as_current=False)
            self._app.conf.update(bell_config())
            self._app.conf.broker_transport_options |= _IMPATIENT
        return self._app


def fanout() -> "Exchange":
    from kombu import Exchange

    return Exchange(LOOK, type="fanout", durable=False)


def bell_config() -> dict[str, object]:
    """Celery's settings that both ends of the bell share."""
    from kombu.common import Broadcast

    return {
        "task_queues": [Broadcast(LOOK, exchange=fanout(), auto_delete=True)],
        "task_default_queue": LOOK,
        "task_ignore_result": True,
        "task_serializer": "json",
        "accept_content": ["json"],
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_transport_options": {
            "socket_timeout": 10,
            "socket_connect_timeout": _CONNECT_SECONDS,
            "socket_keepalive": True,
            "health_check_interval": 25,
        },
    }


def bell_of(settings: Settings) -> Bell:
    broker_url = settings.broker_url.get_secret_value()
    return BrokerBell(broker_url) if broker_url else SilentBell()
