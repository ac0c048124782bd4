"""The numbers of a safetensors file, looked at without the library that computes with them."""

import numpy as np

_EXPONENTS = {"F16": ("<u2", 0x7C00), "BF16": ("<u2", 0x7F80), "F32": ("<u4", 0x7F80_0000)}
"""The bits that are all set in an infinity and in what is no number, and nowhere else."""
DTYPES = tuple(_EXPONENTS)


def are_finite(numbers: bytes, dtype: str) -> bool:
    """Whether all of them are. ``dtype`` is one of ``DTYPES``."""
    view, exponent = _EXPONENTS[dtype]
    return not ((np.frombuffer(numbers, view) & exponent) == exponent).any()
