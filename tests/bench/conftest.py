"""What benches share: the nano pair."""

from tests.support.nano import nano_folders

__all__ = ["nano_folders"]
