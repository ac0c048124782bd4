"""The nano pair, for tests on a card."""

from tests.support.nano import nano_folders

__all__ = ["nano_folders"]
