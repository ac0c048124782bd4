"""What a base must be like for a LoRA to fit it: told by the LoRA's modules and their sizes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from core.errors import LayoutMismatch
from core.layouts import LAYOUTS, NANO_WIDTHS, REAL_WIDTHS, UNetShape, find_layout
from core.loras.names import Place

Widths = dict[str, int]
"""Channels by where they are found: ``unet.1`` and ``unet.2``, the resolutions that have
attention; ``context``, what it reads of the words; ``text_encoder``, ``text_encoder_2``."""

_MULTIPLES = {
    "ff.net.0.proj": (1, 8),
    "ff.net.2": (4, 1),
    "mlp.fc1": (1, 4),
    "mlp.fc2": (4, 1),
}
"""Inputs and outputs of what is not square, in widths of its place."""
_READING = ("attn2.to_k", "attn2.to_v")
_LAST_LEVEL = 2
_TEXT_WIDTHS = {REAL_WIDTHS: (768, 1280), NANO_WIDTHS: (48, 80)}
"""Of both text encoders, beside a UNet of these widths."""


@dataclass(frozen=True)
class Fit:
    """Ids of the layouts that have all modules, and the widths that these were made for."""

    layouts: tuple[str, ...]
    widths: Widths

    @classmethod
    def of(cls, sizes: Mapping[Place, tuple[int, int]]) -> "Fit":
        """From the inputs and outputs of modules that the family has.

        Raises:
            LayoutMismatch: no model of the family has them in these sizes; names one.
        """
        widths: Widths = {}
        seen: dict[str, str] = {}
        for place, (inner, outer) in sizes.items():
            for where, width in _widths(place, inner, outer).items():
                if widths.setdefault(where, width) != width:
                    raise LayoutMismatch(
                        f"`{place.module}` is made for a width of {width} and `{seen[where]}`, "
                        f"beside it, for {widths[where]}: no model has both."
                    )
                seen.setdefault(where, place.module)
        return cls(_layouts(place.module for place in sizes if place.model == "unet"), widths)

    def suits(self, base: UNetShape) -> bool:
        """Whether the base has all modules, in these sizes."""
        return base.layout.id in self.layouts and self.widths == self.widths_of(base)

    def widths_of(self, base: UNetShape) -> Widths:
        """The base's own, where this has some."""
        own = _widths_of(base)
        return {where: own[where] for where in self.widths}

    def facts(self) -> dict[str, Any]:
        return {"layouts": list(self.layouts), "widths": self.widths}

    @classmethod
    def told_by(cls, facts: Mapping[str, Any]) -> "Fit | None":
        """None: they are not of a LoRA that was brought."""
        return cls(tuple(facts["layouts"]), facts["widths"]) if "layouts" in facts else None


def targets_of(names: Iterable[str], layout: str) -> str | None:
    """What a training calls these modules of a UNet (``LoraSpec.targets``); None: it has no word
    for them."""
    found, own = set(names), LAYOUTS[layout]
    if found == set(own.attention_modules()):
        return "attention"
    return "transformer" if found == set(own.linear_modules()) else None


def _layouts(names: Iterable[str]) -> tuple[str, ...]:
    found = set(names)
    having = [one for one in LAYOUTS.values() if found <= set(one.linear_modules())]
    whole = [one for one in find_layout(found) if one in having]
    return tuple(one.id for one in (whole if len(whole) == 1 else having))


def _widths(place: Place, inner: int, outer: int) -> Widths:
    where = _where(place)
    if place.model == "unet" and place.module.endswith(_READING):
        return {"context": inner, where: outer}
    end = next((end for end in _MULTIPLES if place.module.endswith(f".{end}")), "")
    inputs, outputs = _MULTIPLES.get(end, (1, 1))
    width = inner // inputs
    if (inner, outer) != (width * inputs, width * outputs):
        raise LayoutMismatch(
            f"`{place.module}` takes {inner} channels to {outer}, as this layer of the SDXL family "
            "does at no width: the LoRA was made for another model."
        )
    return {where: width}


def _where(place: Place) -> str:
    if place.model != "unet":
        return place.model
    side, number, *_ = place.module.split(".")
    if side == "mid_block":
        return f"unet.{_LAST_LEVEL}"
    return f"unet.{number if side == 'down_blocks' else _LAST_LEVEL - int(number)}"


def _widths_of(base: UNetShape) -> Widths:
    text = _TEXT_WIDTHS[base.widths]
    levels = {f"unet.{level}": width for level, width in enumerate(base.widths)}
    return {**levels, "context": sum(text), "text_encoder": text[0], "text_encoder_2": text[1]}
