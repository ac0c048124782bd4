"""Infinities and what is no number, in each width."""

import pytest
import torch

from core.files.safetensors_values import are_finite

KINDS = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}


def written(number: float, dtype: str) -> bytes:
    return torch.tensor([0.0, number], dtype=KINDS[dtype]).view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("dtype", KINDS)
def test_what_is_finite_and_what_is_not(dtype: str) -> None:
    limits = torch.finfo(KINDS[dtype])
    for good in (0.0, -1.0, limits.max, limits.min, limits.tiny, limits.tiny / 2):
        assert are_finite(written(good, dtype), dtype)
    for bad in (float("nan"), float("inf"), float("-inf")):
        assert not are_finite(written(bad, dtype), dtype)
    assert are_finite(b"", dtype)
