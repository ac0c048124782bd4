"""Prompts and size numbers, held against diffusers' own pipeline."""

from dataclasses import replace

import pytest
import torch

from core.diffusion import conditioning
from core.diffusion.components import Components

PROMPTS = ["a photo of sks dog", "", "naïve 犬!", "word " * 100]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_prompts_are_encoded_as_the_pipeline_does(prompt: str, nano_ssd_1b: Components) -> None:
    text, _, pooled, _ = nano_ssd_1b.pipeline().encode_prompt(prompt)
    ours = conditioning.encode_prompt(nano_ssd_1b, prompt)
    assert ours.text_1LD.shape == (1, 77, 128)
    assert torch.equal(ours.text_1LD, text)
    assert torch.equal(ours.pooled_1P, pooled)


@pytest.mark.parametrize("zeros", [True, False])
@pytest.mark.parametrize("negative", [None, "", "blurry"])
def test_the_negative_is_what_the_base_does(
    zeros: bool, negative: str | None, nano_ssd_1b: Components
) -> None:
    base = replace(nano_ssd_1b, zero_unconditional=zeros)
    _, text, _, pooled = base.pipeline().encode_prompt("a dog", negative_prompt=negative)
    ours = conditioning.encode_negative(base, negative)
    assert torch.equal(ours.text_1LD, text)
    assert torch.equal(ours.pooled_1P, pooled)
    assert bool((ours.text_1LD == 0).all()) is (zeros and negative is None)


def test_time_ids_are_in_the_order_of_the_pipeline(nano_ssd_1b: Components) -> None:
    theirs = nano_ssd_1b.pipeline()._get_add_time_ids(
        (480, 640), (3, 5), (64, 96), dtype=torch.float32, text_encoder_projection_dim=80
    )
    ours = conditioning.time_ids(original_hw=(480, 640), crop_top_left=(3, 5), target_hw=(64, 96))
    assert torch.equal(ours, theirs)
