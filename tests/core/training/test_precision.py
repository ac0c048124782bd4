"""Which dtype a base is held in, and determinism on request."""

import pytest
import torch

from core.specs import Precision
from core.training import precision


@pytest.mark.parametrize(
    ("asked", "device", "dtype"),
    [
        ("auto", "cpu", torch.float32),
        ("auto", "cuda", torch.bfloat16),
        ("fp32", "cuda", torch.float32),
        ("bf16", "cpu", torch.bfloat16),
    ],
)
def test_base_dtype(asked: Precision, device: str, dtype: torch.dtype) -> None:
    assert precision.base_dtype(asked, torch.device(device)) == dtype


@pytest.mark.parametrize("wanted", [True, False])
def test_determinism_lasts_as_long_as_the_block(wanted: bool) -> None:
    with precision.deterministic_algorithms(wanted):
        assert torch.are_deterministic_algorithms_enabled() is wanted
    assert not torch.are_deterministic_algorithms_enabled()
