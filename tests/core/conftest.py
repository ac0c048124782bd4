"""The bases that tests of the numerics share."""

from tests.support.nano import nano_folders, nano_ssd_1b

__all__ = ["nano_folders", "nano_ssd_1b"]
