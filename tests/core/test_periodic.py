"""A look that fails is logged, and the next one comes."""

import threading
from collections.abc import Iterator

import pytest

from core.errors import Unavailable
from core.periodic import Periodic


def test_it_looks_again_whatever_happens(caplog: pytest.LogCaptureFixture) -> None:
    seen = threading.Event()
    failures: Iterator[Exception] = iter([Unavailable("It is away."), ValueError("odd")])

    def look() -> None:
        for failure in failures:
            raise failure
        seen.set()

    routine = Periodic("sweeper", 0.01, look)
    routine.start()
    assert seen.wait(10)
    routine.stop()
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "the sweeper cannot look: It is away.",
        "the sweeper failed at a look and goes on",
    ]
