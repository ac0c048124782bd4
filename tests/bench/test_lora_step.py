"""A training step with our LoRA hooks beside peft's injected layers, on one UNet, in turn."""

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from peft import LoraConfig

from core.diffusion.components import Components
from core.diffusion.lora import Lora
from core.layouts import ATTENTION_TARGETS
from core.specs import LoraSpec
from tests.support.nano import load

ROUNDS = 15


@pytest.mark.bench
def test_hooks_cost_no_more_than_peft(
    nano_folders: Mapping[str, Path], tell: Callable[[str], None]
) -> None:
    ours, theirs = load(nano_folders["nano-ssd-1b"]), load(nano_folders["nano-ssd-1b"])
    lora = Lora(ours.unet, LoraSpec(rank=8), seed=0)
    theirs.unet.add_adapter(LoraConfig(r=8, lora_alpha=8, target_modules=list(ATTENTION_TARGETS)))
    with lora.attached(ours.unet):
        ratios = [
            _seconds(lambda: _step(ours)) / _seconds(lambda: _step(theirs)) for _ in range(ROUNDS)
        ]
    ratio = statistics.median(ratios)
    tell(f"a LoRA step with hooks takes {ratio:.2f} times one with peft's layers")
    assert ratio < 1.1


def _step(components: Components) -> None:
    generator = torch.Generator().manual_seed(0)
    components.unet(
        torch.randn(1, 4, 16, 16, generator=generator),
        torch.tensor(500),
        encoder_hidden_states=torch.randn(1, 77, 128, generator=generator),
        added_cond_kwargs={
            "text_embeds": torch.randn(1, 80, generator=generator),
            "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]]),
        },
    ).sample.square().mean().backward()


def _seconds(step: Callable[[], None]) -> float:
    began = time.perf_counter()
    step()
    return time.perf_counter() - began
