"""Which numbers a run is held in.

Base weights and activations may be half; trainable weights, their gradients and the optimizer's
state are float32 always: in bfloat16 a step of 1e-4 is below the last bit of most weights.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from core.specs import Precision

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def base_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """What ``auto`` means on a device: float32 on the CPU, bfloat16 on CUDA."""
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" else "fp32"
    return DTYPES[precision]


@contextmanager
def deterministic_algorithms(wanted: bool) -> Iterator[None]:
    """Inside, torch refuses operations whose result depends on timing, if ``wanted``.

    On CUDA, cuBLAS also wants ``CUBLAS_WORKSPACE_CONFIG`` set before the process touches the GPU.
    """
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(wanted or before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
