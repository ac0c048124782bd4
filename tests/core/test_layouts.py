"""Block tables against UNets at real widths, which take no memory on the meta device."""

from functools import cache
from typing import Any

import pytest
import torch

from core.diffusion.lora import Lora
from core.layouts import LAYOUTS, REAL_WIDTHS, SDXL, SSD_1B, VEGA, Layout, find_layout
from core.specs import LoraSpec
from tests.support import real_size


@cache
def real_unet(layout: Layout) -> Any:
    with torch.device("meta"):
        return real_size.unet(layout)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_parameters_at_real_widths(layout: Layout) -> None:
    counted = sum(parameter.numel() for parameter in real_unet(layout).parameters())
    assert counted == layout.parameters


def test_published_counts() -> None:
    assert (SDXL.parameters, SSD_1B.parameters, VEGA.parameters) == (
        2_567_463_684,
        1_331_334_404,
        745_225_604,
    )


@pytest.mark.parametrize(("layout", "blocks"), [(SDXL, 70), (SSD_1B, 34), (VEGA, 15)])
def test_blocks_are_those_of_the_unet(layout: Layout, blocks: int) -> None:
    modules = dict(real_unet(layout).named_modules())
    of_unet = {name for name in modules if name.split(".")[-2:-1] == ["transformer_blocks"]}
    assert set(layout.blocks()) == of_unet
    assert len(of_unet) == blocks


def test_state_dict_keys_of_ssd_1b_are_among_those_of_sdxl() -> None:
    large, small = real_unet(SDXL).state_dict(), real_unet(SSD_1B).state_dict()
    assert (len(large), len(small)) == (1680, 944)
    assert all(large[key].shape == tensor.shape for key, tensor in small.items())


@pytest.mark.parametrize(
    ("layout", "modules", "parameters"), [(SDXL, 560, 11_612_160), (SSD_1B, 272, 5_414_912)]
)
def test_lora_of_rank_8(layout: Layout, modules: int, parameters: int) -> None:
    lora = Lora(real_unet(layout), LoraSpec(rank=8), seed=0)
    assert set(lora.targets) == set(layout.attention_modules())
    every = Lora(real_unet(layout), LoraSpec(rank=1, targets="transformer"), seed=0)
    assert set(every.targets) == set(layout.linear_modules())
    assert len(lora.targets) == modules
    for adapter, attention_only in ((lora, True), (every, False)):
        sizes = layout.linear_sizes(
            REAL_WIDTHS, real_size.TEXT_WIDTH, attention_only=attention_only
        )
        pairs = zip(adapter.a, adapter.b, strict=True)
        assert sorted(sizes) == sorted((a_RI.shape[1], b_OR.shape[0]) for a_RI, b_OR in pairs)
    assert sum(parameter.numel() for parameter in lora.parameters()) == parameters


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_layout_is_found_from_the_keys_of_a_unet_or_of_a_lora(layout: Layout) -> None:
    assert find_layout(real_unet(layout).state_dict()) == (layout,)
    lora_keys = [f"unet.{module}.lora_A.weight" for module in layout.attention_modules()]
    assert find_layout(lora_keys) == (layout,)


def test_a_partial_lora_fits_every_layout_that_has_its_blocks() -> None:
    key = "unet.{}.transformer_blocks.{}.attn1.to_q.lora_A.weight"
    assert find_layout([key.format("down_blocks.1.attentions.0", 0)]) == (SDXL, SSD_1B, VEGA)
    assert find_layout([key.format("down_blocks.2.attentions.1", 3)]) == (SDXL, SSD_1B)
    assert find_layout([key.format("mid_block.attentions.0", 2)]) == (SDXL,)


def test_keys_of_something_else_fit_nothing() -> None:
    assert find_layout([]) == ()
    assert find_layout(["text_encoder.layers.0.self_attn.q_proj.lora_A.weight"]) == ()
    assert find_layout(["down_blocks.2.attentions.0.transformer_blocks.10.norm1.weight"]) == ()
