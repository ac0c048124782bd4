"""Children that unpack, shared by the tests of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.config import Settings
from core.datasets.decoder_pool import DecoderPool


@pytest.fixture(scope="package")
def decoders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DecoderPool]:
    """With the caps that everybody has."""
    pool = DecoderPool(Settings(home=Path(tmp_path_factory.mktemp("home"))))
    yield pool
    pool.close()
