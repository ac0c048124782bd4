"""Which matrix of which module a key of a LoRA's file means, in every dialect that is taken.

    peft        unet.<path>.lora_A.weight, .lora_B.weight, .lora_magnitude_vector
    diffusers   unet.<path>.lora.down.weight, .lora.up.weight; of text encoders
                text_encoder.<path>.lora_linear_layer.down.weight; of old attention processors
                <path>.processor.to_q_lora.down.weight, with and without `unet.`
    kohya       lora_unet_<path_with_underscores>.lora_down.weight, .lora_up.weight, .alpha,
                .dora_scale; the path as diffusers has it, or Stability's code; lora_te1_, lora_te2_

Where underscores stand for dots is not guessed: such names are looked up among the family's.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple

from core.layouts import SDXL
from core.loras import refusals

Model = Literal["unet", "text_encoder", "text_encoder_2"]
Part = Literal["a", "b", "alpha", "magnitude"]
Dialect = Literal["peft", "diffusers", "kohya"]


class Place(NamedTuple):
    """A linear layer: a model of the pipeline, and the layer's path in it."""

    model: Model
    module: str


@dataclass(frozen=True)
class Name:
    """What a key means."""

    place: Place
    part: Part
    dialect: Dialect


_TEXT_ENCODERS: dict[Model, tuple[int, str]] = {
    "text_encoder": (12, "encoder"),
    "text_encoder_2": (32, "text_model.encoder"),
}
"""Layers, and where transformers has them: it took a level out of the class of the first."""
_TEXT_LINEAR = tuple(
    f"{parent}.{layer}"
    for parent, layers in (
        ("self_attn", ("q_proj", "k_proj", "v_proj", "out_proj")),
        ("mlp", ("fc1", "fc2")),
    )
    for layer in layers
)
_UNET_SIDES = ("down_blocks.", "mid_block.", "up_blocks.")

_DOTTED: dict[str, tuple[Part, Dialect]] = {
    ".lora_A.weight": ("a", "peft"),
    ".lora_B.weight": ("b", "peft"),
    ".lora_magnitude_vector": ("magnitude", "peft"),
    ".lora_magnitude_vector.weight": ("magnitude", "peft"),
    ".lora.down.weight": ("a", "diffusers"),
    ".lora.up.weight": ("b", "diffusers"),
    ".lora_linear_layer.down.weight": ("a", "diffusers"),
    ".lora_linear_layer.up.weight": ("b", "diffusers"),
    ".alpha": ("alpha", "diffusers"),
}
_KOHYA: dict[str, Part] = {
    "lora_down.weight": "a",
    "lora_up.weight": "b",
    "alpha": "alpha",
    "dora_scale": "magnitude",
}
_PROCESSOR = re.compile(r"\.processor\.(to_q|to_k|to_v|to_out)_lora\.(down|up)\.weight$")

_LEVEL = re.compile(r"(down|up)_blocks\.(\d)\.attentions\.(\d)\.(.+)")
_MIDDLE = re.compile(r"mid_block\.attentions\.0\.(.+)")
_LEVEL_BLOCKS = 3
"""Of a level: two ResNets with their transformers and a downsampler, or three and an upsampler."""
_HALVES = (("lora_A", "lora_B"), (".down.", ".up."), ("lora_down", "lora_up"))


def name_of(key: str) -> Name:
    """Raises LayoutMismatch or Unprocessable where it means nothing that is taken."""
    if key.startswith("lora_"):
        return _kohya(key)
    path, part, dialect = _split(key)
    return Name(_place(key, path), part, dialect)


def other_half(key: str) -> str:
    """What B's key would be for A's, and A's for B's."""
    for down, up in _HALVES:
        if down in key:
            return key.replace(down, up)
        if up in key:
            return key.replace(up, down)
    raise AssertionError(f"`{key}` is neither half")


@cache
def modules() -> frozenset[Place]:
    """Every linear layer that may have an update, of the largest layout: the others are parts."""
    unet = (Place("unet", module) for module in SDXL.linear_modules())
    return frozenset((*unet, *(place for place, _ in _text_modules())))


def kohya_key(module: str) -> str:
    """``down_blocks.1.attentions.0.proj_in`` is ``lora_unet_input_blocks_4_1_proj_in``: as in
    Stability's own code, with underscores for dots."""
    if middle := _MIDDLE.fullmatch(module):
        original = f"middle_block.1.{middle[1]}"
    else:
        level = _LEVEL.fullmatch(module)
        assert level, f"{module} is in no transformer"
        side, number, attention, rest = level.groups()
        place = _LEVEL_BLOCKS * int(number) + int(attention)
        # the way down begins with a convolution
        blocks = f"input_blocks.{place + 1}" if side == "down" else f"output_blocks.{place}"
        original = f"{blocks}.1.{rest}"
    return _underscored("lora_unet", original)


@cache
def _kohya_places() -> dict[str, Place]:
    unet = SDXL.linear_modules()
    found = {kohya_key(module): Place("unet", module) for module in unet}
    found |= {_underscored("lora_unet", module): Place("unet", module) for module in unet}
    for place, path in _text_modules():
        encoder = "lora_te1" if place.model == "text_encoder" else "lora_te2"
        found[_underscored(encoder, f"text_model.encoder.{path}")] = place
    return found


def _text_modules() -> Iterator[tuple[Place, str]]:
    """With their paths below the encoder, which are the same everywhere."""
    for model, (layers, root) in _TEXT_ENCODERS.items():
        for number in range(layers):
            for layer in _TEXT_LINEAR:
                path = f"layers.{number}.{layer}"
                yield Place(model, f"{root}.{path}"), path


def _underscored(prefix: str, path: str) -> str:
    return f"{prefix}_{path.replace('.', '_')}"


def _kohya(key: str) -> Name:
    module, _, end = key.partition(".")
    if end not in _KOHYA:
        raise refusals.unknown_key(key)
    if module not in _kohya_places():
        raise refusals.unknown_module(module)
    return Name(_kohya_places()[module], _KOHYA[end], "kohya")


def _split(key: str) -> tuple[str, Part, Dialect]:
    """A dotted key's path with its model, and what stands behind it."""
    if old := _PROCESSOR.search(key):
        layer = "to_out.0" if old[1] == "to_out" else old[1]
        return f"{key[: old.start()]}.{layer}", "a" if old[2] == "down" else "b", "diffusers"
    for end, (part, dialect) in _DOTTED.items():
        if key.endswith(end):
            return key.removesuffix(end), part, dialect
    raise refusals.unknown_key(key)


def _place(key: str, path: str) -> Place:
    if path.startswith(_UNET_SIDES):
        return Place("unet", path)
    model, _, module = path.partition(".")
    if model == "unet":
        return Place("unet", module)
    for encoder, (_, root) in _TEXT_ENCODERS.items():
        if model == encoder:
            inside = module.removeprefix("text_model.").removeprefix("encoder.")
            return Place(encoder, f"{root}.{inside}")
    raise refusals.unknown_key(key)
