"""Whether an error says that memory is full, a device's or the host's."""

_SIGNS = (
    "can't allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def is_full_memory(error: BaseException) -> bool:
    """torch has an error of its own only where it allocates on a card. Told by its name, so that
    nobody imports torch to ask."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)
