"""Every random number of a run, each by the ordinal of the sample that it belongs to.

A run is samples 0, 1, 2, ... whatever they are batched into: sample ``n`` of step ``s`` is
``n = s * effective_batch + i``. Each draw has a generator of its own, on the CPU, seeded by
(seed, purpose, n), so nothing has to be kept to resume, and another split into batch and
accumulation draws the same numbers.
"""

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b

import torch
from torch import Tensor


def generator(seed: int, purpose: str, number: int) -> torch.Generator:
    """A CPU generator that no other (seed, purpose, number) shares."""
    return torch.Generator().manual_seed(derived_seed(seed, purpose, number))


def derived_seed(seed: int, purpose: str, number: int) -> int:
    """63 bits: all that a torch generator takes on every device."""
    digest = blake2b(f"{seed}/{purpose}/{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def example(seed: int, purpose: str, ordinal: int, count: int) -> int:
    """Which of ``count`` examples a sample shows: each epoch is a shuffle of its own."""
    epoch, place = divmod(ordinal, count)
    return int(shuffle(seed, purpose, epoch, count)[place])


@lru_cache(maxsize=8)
def shuffle(seed: int, purpose: str, number: int, count: int) -> Tensor:
    """0 to ``count`` - 1 in an order of their own, shape (count,). Not to be written to."""
    return torch.randperm(count, generator=generator(seed, purpose, number))


def share(seed: int, purpose: str, ordinal: int) -> float:
    """A number in [0, 1)."""
    return float(torch.rand((), generator=generator(seed, purpose, ordinal)))


def choice(seed: int, purpose: str, ordinal: int, count: int) -> int:
    """One of ``count``, all alike likely."""
    return int(torch.randint(count, (), generator=generator(seed, purpose, ordinal)))


def choices(seed: int, purpose: str, ordinals: Sequence[int], count: int) -> Tensor:
    """``choice`` for each sample, shape (B,), int64 on the CPU."""
    return torch.tensor([choice(seed, purpose, ordinal, count) for ordinal in ordinals])


def normal(seed: int, purpose: str, ordinals: Sequence[int], shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise, shape (B, *shape), float32 on the CPU.

    Drawn sample by sample: torch's numbers depend on the shape that is asked for.
    """
    return torch.stack(
        [torch.randn(shape, generator=generator(seed, purpose, ordinal)) for ordinal in ordinals]
    )
