"""What a job will take, before anything is computed: bytes of memory and of disk.

Activations are read from a table. It was counted by running the code itself on tensors without
data, at each base's own size, a batch of one, in half precision; a test counts again. They grow
with pixels, with the batch and with the width of a number.
"""

from dataclasses import dataclass

from core.bases import BaseModel
from core.ladder import Rung
from core.specs import FineTuneSpec, GenerateSpec, LoraSpec

FLOAT32 = 4
RUNTIME_BYTES = 700_000_000
"""Of a process with torch and the libraries, on the CPU; on a GPU, of what cuBLAS and cuDNN set
aside and what lies between allocations."""
ROWS_BYTES = 512 * 1024**2
"""What encoded pictures may take of the device: about a thousand of 1024 px."""
DROPOUT = 1.5
"""Each adapter keeps its own input and a mask: activations times this, at most."""


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
class Footprint:
    """Of one base: a training step with a LoRA on attention, or on all of the transformers."""

    family: Family
    attention: Held
    transformer: Held


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
    "ssd-1b": Footprint(_REAL, Held(3317e6, 441e6), Held(3951e6, 518e6)),
    "sdxl": Footprint(_REAL, Held(5646e6, 543e6), Held(6783e6, 623e6)),
    "vega": Footprint(_REAL, Held(1980e6, 384e6), Held(2326e6, 463e6)),
    "nano-sdxl": Footprint(_NANO, Held(6.49e6, 0.33e6), Held(7.38e6, 0.32e6)),
    "nano-ssd-1b": Footprint(_NANO, Held(3.94e6, 0.40e6), Held(4.48e6, 0.37e6)),
}


def fine_tune_bytes(
    spec: FineTuneSpec, base: BaseModel, rung: Rung, *, pictures: int, on_gpu: bool
) -> int:
    """The most memory that it holds at once, what the process itself needs included.

    On a GPU, what a stage does not need lies in the host's memory meanwhile: VAE and text encoders
    while it learns; and the UNet while it encodes, where memory is short.
    """
    own, width = FOOTPRINTS[base.id].family, number_bytes(spec.precision, on_gpu)
    side = spec.resolution or base.native_size
    grown = (side / base.native_size) ** 2 * width / 2
    unet, vae, text = (
        count * width for count in (base.parameters, own.vae_parameters, own.text_parameters)
    )
    idle = 0 if on_gpu else vae + text
    learning = unet + trained_bytes(spec, base) + idle
    aside = on_gpu and rung.checkpointing
    stages = [
        unet + vae + text,  # as they are loaded
        (0 if aside else unet) + vae + text + own.encode * grown,
        learning + _activations(spec, base, rung) * grown + _rows(spec, base, rung, pictures),
    ]
    # the export's check: the file once more beside the LoRA, and a pass of the UNet
    stages.append(learning + 2 * lora_bytes(spec.lora, base) + own.forward * grown)
    if spec.sample:
        stages.append(learning + (vae if on_gpu else 0) + max(own.decode, 2 * own.forward) * grown)
    if spec.prior and spec.prior.images:
        stages.append(unet + vae + text + 2 * own.forward * grown)
    return RUNTIME_BYTES + round(max(stages))


def generate_bytes(spec: GenerateSpec, base: BaseModel, *, on_gpu: bool) -> int:
    """The most memory that it holds at once."""
    own, width = FOOTPRINTS[base.id].family, number_bytes(spec.precision, on_gpu)
    pixels = (spec.width or base.native_size) * (spec.height or base.native_size)
    grown = pixels / base.native_size**2 * width / 2
    weights = (base.parameters + own.vae_parameters + own.text_parameters) * width
    rows = 2 if spec.guidance > 1 else 1
    return RUNTIME_BYTES + round(weights + max(own.decode, rows * own.forward) * grown)


def trained_bytes(spec: FineTuneSpec, base: BaseModel) -> int:
    """Of a LoRA in training: weights, gradients, the optimizer's state, an average."""
    copies = 2 + (2 if spec.optimizer == "adamw" else 0) + (1 if spec.ema else 0)
    return copies * lora_bytes(spec.lora, base)


def lora_bytes(lora: LoraSpec, base: BaseModel) -> int:
    """Of its float32 matrices, in memory or in a file."""
    sizes = base.layout.linear_sizes(
        base.widths,
        FOOTPRINTS[base.id].family.text_width,
        attention_only=lora.targets == "attention",
    )
    return FLOAT32 * lora.rank * sum(inner + outer for inner, outer in sizes)


def fine_tune_disk_bytes(spec: FineTuneSpec, base: BaseModel, *, steps: int, pictures: int) -> int:
    """Of what it leaves: both LoRA files, two checkpoints, what is kept on the way, the cache."""
    lora, side = lora_bytes(spec.lora, base), spec.resolution or base.native_size
    checkpoint = lora * (3 + (1 if spec.ema else 0))
    snapshots = (steps - 1) // spec.keep_every if spec.keep_every else 0
    rounds = steps // spec.sample.every + 1 + snapshots if spec.sample else 0
    drawn = rounds * len(spec.sample.prompts) * _png_bytes(side, side) if spec.sample else 0
    classes = spec.prior.images if spec.prior else 0
    rows = pictures * spec.views_per_picture + classes
    return lora * (2 + snapshots) + 2 * checkpoint + drawn + rows * _row_bytes(base, side)


def generate_disk_bytes(spec: GenerateSpec, base: BaseModel) -> int:
    """Of its pictures."""
    size = _png_bytes(spec.width or base.native_size, spec.height or base.native_size)
    return len(spec.prompts) * spec.images * size


def number_bytes(precision: str, on_gpu: bool) -> int:
    """Of a base's weight."""
    if precision == "auto":
        return 2 if on_gpu else FLOAT32
    return FLOAT32 if precision == "fp32" else 2


def _activations(spec: FineTuneSpec, base: BaseModel, rung: Rung) -> float:
    own = FOOTPRINTS[base.id]
    held = own.attention if spec.lora.targets == "attention" else own.transformer
    one = held.checkpointed if rung.checkpointing else held.kept
    samples = rung.micro_batch * (2 if spec.prior else 1)
    return one * samples * (DROPOUT if spec.lora.dropout else 1)


def _rows(spec: FineTuneSpec, base: BaseModel, rung: Rung, pictures: int) -> int:
    if not rung.rows_on_device:
        return 0
    side = spec.resolution or base.native_size
    one = _row_bytes(base, side)
    classes = spec.prior.images if spec.prior else 0
    shelves = (pictures * spec.views_per_picture, classes)
    return sum(min(ROWS_BYTES, rows * one) for rows in shelves)


def row_bytes(side: int, latent_factor: int) -> int:
    """Of an encoded view: mean and deviation of four channels, float32."""
    return 2 * 4 * (side // latent_factor) ** 2 * FLOAT32


def _row_bytes(base: BaseModel, side: int) -> int:
    return row_bytes(side, FOOTPRINTS[base.id].family.latent_factor)


def _png_bytes(width: int, height: int) -> int:
    """At most: noise does not shrink."""
    return 3 * width * height
