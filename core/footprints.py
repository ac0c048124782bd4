"""What the UNets and their companions hold in memory, counted: the table that estimates read.

Activations were counted by running the code itself on tensors without data, at each base's own
size, a batch of one, in half precision; a test counts again.
"""

from dataclasses import dataclass

from core.layouts import NANO_WIDTHS, REAL_WIDTHS, UNetShape


@dataclass(frozen=True)
class Held:
    """Bytes held at the peak of a LoRA step, its gradients left out: with all activations kept, and
    with those of each block computed again."""

    kept: float
    checkpointed: float


@dataclass(frozen=True)
class Family:
    """What bases of one size share: parts beside the UNet, and the bytes that a pass of the UNet
    without gradients, and the VAE's encoding and decoding, hold at their peaks."""

    forward: float
    encode: float
    decode: float
    vae_parameters: int
    text_parameters: int
    text_width: int
    latent_factor: int


@dataclass(frozen=True)
class Taught(Held):
    """Of a distillation's step; and how many numbers Adafactor keeps of such a student, a row and a
    column of each matrix. Of a convolution those are the last two dimensions, of 3 or 1."""

    adafactor: int


@dataclass(frozen=True)
class Footprint:
    """Of one UNet: a training step with a LoRA on attention, or on all of the transformers; or of
    the whole UNet as SDXL's student, where it may be one."""

    family: Family
    attention: Held
    transformer: Held
    student: Taught | None = None


_REAL = Family(
    forward=166e6,
    encode=1348e6,
    decode=1611e6,
    vae_parameters=83_653_863,
    text_parameters=817_720_320,
    text_width=2048,
    latent_factor=8,
)
_NANO = Family(
    forward=0.23e6,
    encode=0.55e6,
    decode=0.79e6,
    vae_parameters=681_911,
    text_parameters=470_400,
    text_width=128,
    latent_factor=4,
)
FOOTPRINTS = {
    ("ssd-1b", REAL_WIDTHS): Footprint(
        _REAL, Held(3317e6, 441e6), Held(3951e6, 518e6), Taught(5274e6, 546e6, 222_484_484)
    ),
    ("sdxl", REAL_WIDTHS): Footprint(_REAL, Held(5646e6, 543e6), Held(6783e6, 623e6)),
    ("vega", REAL_WIDTHS): Footprint(
        _REAL, Held(1980e6, 384e6), Held(2326e6, 463e6), Taught(3533e6, 546e6, 221_398_660)
    ),
    ("sdxl", NANO_WIDTHS): Footprint(_NANO, Held(6.49e6, 0.33e6), Held(7.38e6, 0.32e6)),
    ("ssd-1b", NANO_WIDTHS): Footprint(
        _NANO, Held(3.94e6, 0.40e6), Held(4.48e6, 0.37e6), Taught(6.27e6, 0.61e6, 888_372)
    ),
    ("vega", NANO_WIDTHS): Footprint(
        _NANO, Held(2.50e6, 0.40e6), Held(2.80e6, 0.37e6), Taught(4.35e6, 0.61e6, 830_948)
    ),
}


def is_counted(shape: UNetShape) -> bool:
    """Whether the table knows UNets of these widths."""
    return (shape.layout.id, shape.widths) in FOOTPRINTS


def footprint(shape: UNetShape) -> Footprint:
    return FOOTPRINTS[shape.layout.id, shape.widths]
