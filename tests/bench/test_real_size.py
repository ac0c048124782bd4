"""SDXL's and SSD-1B's UNets at real size, side by side: a forward pass and the memory it takes.

Random weights, on the CPU, one picture of 512 px without guidance, in bfloat16: as wide as what
cards run in. Each lives in a process of its own, whose memory is its own; their passes take turns,
so that whatever else the machine does slows both.
"""

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from core.layouts import SDXL, SSD_1B, Layout
from core.training import memory
from tests.support import real_size

pytestmark = pytest.mark.bench

SIDE = 512
DTYPE = torch.bfloat16
ROUNDS = 7
CPU, META = torch.device("cpu"), torch.device("meta")


@dataclass(frozen=True)
class Held:
    """``bytes`` at the peak, with the weights and without what Python and torch took before."""

    bytes: int
    weight_bytes: int
    flops: int


def test_ssd_1b_is_faster_and_smaller_than_sdxl(tell: Callable[[str], None]) -> None:
    with process_with(SDXL) as large, process_with(SSD_1B) as small:
        sdxl, ssd_1b = (one.submit(held).result() for one in (large, small))
        rounds = [[one.submit(seconds).result() for one in (large, small)] for _ in range(ROUNDS)]
    for layout, of_it, taken in zip(
        (SDXL, SSD_1B), (sdxl, ssd_1b), zip(*rounds, strict=True), strict=True
    ):
        tell(
            f"{layout.id}, a forward pass at {SIDE} px in {DTYPE}: {statistics.median(taken):.1f} "
            f"s, {of_it.flops / 1e12:.2f} TFLOP, {of_it.bytes / 1e9:.2f} GB at the peak, of them "
            f"{of_it.weight_bytes / 1e9:.2f} GB weights"
        )
    faster = statistics.median(of_sdxl / of_ssd_1b for of_sdxl, of_ssd_1b in rounds)
    smaller = ssd_1b.bytes / sdxl.bytes
    tell(
        f"ssd-1b: {faster:.2f} times as fast (by FLOPs {sdxl.flops / ssd_1b.flops:.2f}; the "
        f"article's 60 % faster is 1.60), {smaller:.2f} of the memory (the article's 50 % smaller "
        f"is 0.50, the weights alone are {ssd_1b.weight_bytes / sdxl.weight_bytes:.2f})"
    )
    assert faster > 1.3
    assert smaller < 0.6


def process_with(layout: Layout) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        1, mp_context=get_context("spawn"), initializer=hold, initargs=(layout,)
    )


_process: dict[str, Any] = {}
"""What a process holds from one call to the next."""


def hold(layout: Layout) -> None:
    with META:  # diffusers' own drawing of weights takes minutes
        unet = real_size.unet(layout).to(DTYPE)
        with FlopCounterMode(display=False) as counter:
            forward(unet, META)
    memory.reset_peak(CPU)
    _process["floor"] = peak_bytes()
    unet = unet.to_empty(device=CPU)
    for weight in unet.parameters():
        nn.init.normal_(weight, 0, 0.02)
    _process["unet"], _process["flops"] = unet, counter.get_total_flops()


def held() -> Held:
    """After the first pass, whose time does not count."""
    unet = _process["unet"]
    forward(unet, CPU)
    return Held(
        bytes=peak_bytes() - _process["floor"],
        weight_bytes=sum(weight.nbytes for weight in unet.parameters()),
        flops=_process["flops"],
    )


def seconds() -> float:
    began = time.perf_counter()
    forward(_process["unet"], CPU)
    return time.perf_counter() - began


@torch.no_grad()
def forward(unet: Any, device: torch.device) -> None:
    cells = SIDE // 8
    with device:
        unet(
            torch.randn(1, 4, cells, cells, dtype=DTYPE),
            torch.tensor(500),
            encoder_hidden_states=torch.randn(1, 77, real_size.TEXT_WIDTH, dtype=DTYPE),
            added_cond_kwargs={
                "text_embeds": torch.randn(1, real_size.POOLED_WIDTH, dtype=DTYPE),
                "time_ids": torch.zeros(1, 6, dtype=DTYPE),
            },
        )


def peak_bytes() -> int:
    peak = memory.peak_bytes(CPU)
    assert peak is not None, "Linux tells"
    return peak
