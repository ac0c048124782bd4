"""The bell on a real Redis: every worker hears it, and nobody waits for a broker that is away."""

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from celery import Celery
from pydantic import SecretStr

from core.config import Settings
from core.jobs.bell import LOOK, BrokerBell, SilentBell, bell_config, bell_of
from tests.support.redis import redis_server
from tests.support.server import wait_until


@pytest.fixture
def broker_url(tmp_path: Path) -> Iterator[str]:
    with redis_server(tmp_path) as url:
        yield url


class Listener:
    """What one worker hears on its queue of the fanout."""

    def __init__(self, broker_url: str) -> None:
        app = Celery(broker=broker_url, set_as_current=False)
        app.conf.update(bell_config())
        self.heard: list[str] = []
        self.connection = app.connection()
        consumer = app.amqp.TaskConsumer(
            self.connection.channel(),
            on_message=lambda message: self.heard.append(message.headers["task"]),
            no_ack=True,
        )
        consumer.consume()

    def listen(self, count: int) -> list[str]:
        """What came until there were ``count``, and what else comes right after."""
        deadline = time.monotonic() + 30
        while len(self.heard) < count and time.monotonic() < deadline:
            self._drain()
        self._drain()
        return self.heard

    def _drain(self) -> None:
        with suppress(TimeoutError):
            for _ in range(10):  # subscribing is an event too
                self.connection.drain_events(timeout=0.2)


def test_every_worker_hears_one_ring(broker_url: str) -> None:
    workers = [Listener(broker_url), Listener(broker_url)]
    assert [worker.listen(0) for worker in workers] == [[], []]
    bell = BrokerBell(broker_url)
    bell.ring()
    assert [worker.listen(1) for worker in workers] == [[LOOK], [LOOK]]
    for worker in workers:
        worker.connection.release()
    bell.close()


def test_a_broker_that_is_away_costs_nothing_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bell = BrokerBell("redis://127.0.0.1:1/0")
    for _ in range(2):
        began, told = time.monotonic(), len(caplog.records)
        bell.ring()
        assert time.monotonic() - began < 1
        wait_until(lambda: len(caplog.records) > told, 30, "it is logged")  # noqa: B023  # at once
        assert "workers will poll" in caplog.records[-1].message
    bell.close()
    bell._thread.join(10)
    assert not bell._thread.is_alive()


def test_a_broker_that_says_nothing_keeps_nobody_waiting() -> None:
    """It takes connections and never answers, as behind a network that swallows all."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        bell = BrokerBell(f"redis://127.0.0.1:{mute.getsockname()[1]}/0")
        began = time.monotonic()
        for _ in range(20):
            bell.ring()
        assert time.monotonic() - began < 5, "it would wait for ten"
        bell.close()


def test_no_broker_no_bell(tmp_path: Path) -> None:
    assert isinstance(bell_of(Settings(home=tmp_path)), SilentBell)
    settings = Settings(home=tmp_path, broker_url=SecretStr("redis://127.0.0.1:1/0"))
    bell = bell_of(settings)
    assert isinstance(bell, BrokerBell)
    bell.close()
