"""The tables of shapes against the modules that diffusers and transformers build."""

import json
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from core.adding import shapes
from core.adding.family import NANO, REAL
from core.layouts import LAYOUTS, Layout
from core.nano import shape
from core.originals import WRAPPER
from tests.support import real_size

FAMILIES = {"real": REAL, "nano": NANO}


def shapes_of(module: Any) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}


def wrapped(module: Any) -> dict[str, tuple[int, ...]]:
    """As published: with the wrapper that newer versions of transformers leave out."""
    return {
        key if key.startswith((WRAPPER, "text_projection")) else WRAPPER + key: shape
        for key, shape in shapes_of(module).items()
    }


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("size", FAMILIES)
def test_unet(size: str, layout: Layout) -> None:
    with torch.device("meta"):
        unet = real_size.unet(layout) if size == "real" else shape.unet(layout)
    assert shapes.unet(FAMILIES[size].config("unet"), layout) == shapes_of(unet)


@pytest.mark.parametrize("size", FAMILIES)
def test_vae(size: str) -> None:
    with torch.device("meta"):
        vae = real_size.vae() if size == "real" else shape.vae()
    assert shapes.vae(FAMILIES[size].config("vae")) == shapes_of(vae)


@pytest.mark.parametrize("at", [0, 1])
def test_text_encoders_at_real_size(at: int) -> None:
    with torch.device("meta"):
        encoder = real_size.text_encoders()[at]
    config = REAL.config(("text_encoder", "text_encoder_2")[at])
    assert shapes.text_encoder(config) == wrapped(encoder)
    for name in ("hidden_act", "num_attention_heads", "projection_dim", "layer_norm_eps"):
        assert config[name] == getattr(encoder.config, name)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("size", FAMILIES)
def test_the_configurations_build_what_the_shapes_are_of(size: str, layout: Layout) -> None:
    family = FAMILIES[size]
    config = family.config("unet") | layout.unet_overrides
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(config)
        vae = AutoencoderKL.from_config(family.config("vae"))
        first = CLIPTextModel(CLIPTextConfig(**family.config("text_encoder")))
        second = CLIPTextModelWithProjection(CLIPTextConfig(**family.config("text_encoder_2")))
    assert shapes_of(unet) == shapes.unet(config, layout)
    assert shapes_of(vae) == shapes.vae(family.config("vae"))
    assert wrapped(first) == shapes.text_encoder(family.config("text_encoder"))
    assert wrapped(second) == shapes.text_encoder(family.config("text_encoder_2"))


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_the_unet_of_real_size_is_published_ones(layout: Layout) -> None:
    with torch.device("meta"):
        theirs = real_size.unet(layout).config
        ours = UNet2DConditionModel.from_config(REAL.config("unet") | layout.unet_overrides).config
    for name in theirs.keys() - {"_use_default_values", "_class_name", "_diffusers_version"}:
        same = ours[name], theirs[name]
        assert json.dumps(same[0]) == json.dumps(same[1]), name
