"""What benches share: the nano pair, and a place to say what was measured."""

from collections.abc import Callable

import pytest

from tests.support.nano import nano_folders

__all__ = ["nano_folders"]

_measured: list[str] = []


@pytest.fixture(scope="session")
def tell() -> Callable[[str], None]:
    """Adds a line to the table that ends the run."""
    return _measured.append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _measured:
        terminalreporter.section("measured")
        for line in _measured:
            terminalreporter.line(line)
