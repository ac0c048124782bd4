"""Block tables of the SDXL family, and the layout of a UNet or LoRA told from its key names alone.

A table counts the transformer blocks of each attention module on the way down, in the middle and
on the way up; everything else (ResNets, widths, embeddings) is the same in the whole family.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

ATTENTION_TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
"""The linear layers of one attention that a LoRA is put on: the diffusers scripts' choice."""
_FEED_FORWARD = ("ff.net.0.proj", "ff.net.2")
TRANSFORMER_TARGETS = (*ATTENTION_TARGETS, *_FEED_FORWARD, "proj_in", "proj_out")
"""All linear layers of a transformer, as kohya takes them; the last two once for its blocks."""

REAL_WIDTHS = (320, 640, 1280)
"""Channels at the three resolutions of every published model of the family."""
NANO_WIDTHS = (32, 48, 64)
"""Of the nano pair: all different, as the real ones are, so a weight that lands on the wrong level
cannot fit."""

_BLOCK = re.compile(
    r"(?:down_blocks|up_blocks|mid_block)[.\d]*\.attentions\.\d+\.transformer_blocks\.\d+"
)


@dataclass(frozen=True)
class Layout:
    """Where a UNet has transformer blocks, and how many.

    ``down`` and ``up`` hold a tuple a level, in the order data flows, and in it one count for each
    attention module; a level without attention is empty. ``mid`` is None where the middle is one
    ResNet and nothing else. ``parameters`` counts the UNet at real widths (320, 640, 1280),
    ``nano_parameters`` at those of the nano pair.
    """

    id: str
    parameters: int
    nano_parameters: int
    down: tuple[tuple[int, ...], ...]
    mid: int | None
    up: tuple[tuple[int, ...], ...]

    @property
    def unet_overrides(self) -> dict[str, object]:
        """What of a ``UNet2DConditionModel`` config makes this layout; the rest is SDXL's.

        diffusers ignores the entry of a level without attention but wants one there.
        """
        return {
            "transformer_layers_per_block": [list(counts) or [0] for counts in self.down],
            "reverse_transformer_layers_per_block": [list(counts) or [0] for counts in self.up],
            "mid_block_type": "UNetMidBlock2D" if self.mid is None else "UNetMidBlock2DCrossAttn",
        }

    def blocks(self) -> Iterator[str]:
        """The path of every transformer block: ``mid_block.attentions.0.transformer_blocks.9``."""
        yield from _blocks_of("down_blocks", self.down)
        if self.mid is not None:
            yield from (_block("mid_block", 0, depth) for depth in range(self.mid))
        yield from _blocks_of("up_blocks", self.up)

    def stacks(self) -> dict[str, int]:
        """How many transformer blocks stand in each attention module, by the path of their list."""
        paths = [block.rpartition(".")[0] for block in self.blocks()]
        return {path: paths.count(path) for path in dict.fromkeys(paths)}

    def attention_modules(self) -> tuple[str, ...]:
        """Paths of the linear layers that a LoRA on attention is put on: 8 a transformer block."""
        return tuple(
            f"{block}.{attention}.{target}"
            for block in self.blocks()
            for attention in ("attn1", "attn2")
            for target in ATTENTION_TARGETS
        )

    def linear_modules(self) -> tuple[str, ...]:
        """Paths of all linear layers in the transformers."""
        inside = [f"{block}.{layer}" for block in self.blocks() for layer in _FEED_FORWARD]
        transformers = dict.fromkeys(block.partition(".transformer_")[0] for block in self.blocks())
        around = [f"{one}.{layer}" for one in transformers for layer in ("proj_in", "proj_out")]
        return (*self.attention_modules(), *inside, *around)

    def linear_sizes(
        self, widths: tuple[int, int, int], text_width: int, *, attention_only: bool
    ) -> Iterator[tuple[int, int]]:
        """Inputs and outputs of each of ``attention_modules``, or of ``linear_modules``.

        Args:
            widths: channels at the three resolutions.
            text_width: of what the cross attention reads.
        """
        mid = () if self.mid is None else ((self.mid,),)
        levels = [*zip(self.down, widths, strict=True), *((counts, widths[-1]) for counts in mid)]
        levels += zip(self.up, reversed(widths), strict=True)
        for counts, width in levels:
            within, reading = (width, width), (text_width, width)
            for depth in counts:
                for _ in range(depth):
                    yield from (within,) * 6
                    yield from (reading,) * 2
                    if not attention_only:
                        yield (width, 8 * width)
                        yield (4 * width, width)
                if not attention_only:
                    yield from (within,) * 2


def _blocks_of(side: str, levels: tuple[tuple[int, ...], ...]) -> Iterator[str]:
    for level, counts in enumerate(levels):
        for attention, count in enumerate(counts):
            yield from (_block(f"{side}.{level}", attention, depth) for depth in range(count))


def _block(parent: str, attention: int, depth: int) -> str:
    return f"{parent}.attentions.{attention}.transformer_blocks.{depth}"


SDXL = Layout(
    id="sdxl",
    parameters=2_567_463_684,
    nano_parameters=7_402_292,
    down=((), (2, 2), (10, 10)),
    mid=10,
    up=((10, 10, 10), (2, 2, 2), ()),
)
SSD_1B = Layout(
    id="ssd-1b",
    parameters=1_331_334_404,
    nano_parameters=4_101_524,
    down=((), (2, 2), (4, 4)),
    mid=None,
    up=((4, 4, 10), (2, 1, 1), ()),
)
VEGA = Layout(
    id="vega",
    parameters=745_225_604,
    nano_parameters=2_478_596,
    down=((), (1, 1), (2, 2)),
    mid=None,
    up=((2, 2, 2), (1, 1, 1), ()),
)
LAYOUTS = {layout.id: layout for layout in (SDXL, SSD_1B, VEGA)}


@dataclass(frozen=True)
class UNetShape:
    """How a UNet of the family is built, and for which pictures.

    ``widths`` are channels at its three resolutions: one layout is built at more than one size.
    ``native_size`` is in pixels a side.
    """

    layout: Layout
    widths: tuple[int, int, int]
    native_size: int

    @property
    def parameters(self) -> int:
        real = self.widths == REAL_WIDTHS
        return self.layout.parameters if real else self.layout.nano_parameters


def find_layout(keys: Iterable[str]) -> tuple[Layout, ...]:
    """The layouts that a UNet's or a LoRA's keys can belong to.

    One layout: its blocks are exactly those named. Several: a LoRA that names only some blocks, all
    of which exist in each of them (the smaller layouts' block names are among the larger ones').
    None: the keys name no transformer block, or one that no layout has.

    Args:
        keys: state-dict keys of a UNet, or of a LoRA with dotted module paths
            (``unet.<path>.lora_A.weight``); any prefix and suffix.
    """
    named = {match.group() for key in keys if (match := _BLOCK.search(key))}
    for layout in LAYOUTS.values():
        if named == set(layout.blocks()):
            return (layout,)
    return tuple(layout for layout in LAYOUTS.values() if named and named <= set(layout.blocks()))
