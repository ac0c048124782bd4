"""A place to say what was measured or done: lines that end the run."""

from collections.abc import Callable

import pytest

_told: list[str] = []


@pytest.fixture(scope="session")
def tell() -> Callable[[str], None]:
    """Adds a line to the table that ends the run."""
    return _told.append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _told:
        terminalreporter.section("measured")
        for line in _told:
            terminalreporter.line(line)
