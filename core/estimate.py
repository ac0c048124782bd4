"""What a job will take, before anything is computed: bytes of memory and of disk.

Activations are those of the table of footprints. They grow with pixels, with the batch and with the
width of a number.
"""

from core.footprints import Taught, footprint
from core.ladder import Rung
from core.layouts import LAYOUTS, UNetShape
from core.specs import DistillSpec, FineTuneSpec, GenerateSpec, LoraSpec, TrainingSpec

FLOAT32 = 4
RUNTIME_BYTES = 700_000_000
"""Of a process with torch and the libraries, on the CPU; on a GPU, of what cuBLAS and cuDNN set
aside and what lies between allocations."""
ROWS_BYTES = 512 * 1024**2
"""What encoded pictures may take of the device: about a thousand of 1024 px."""
GRADIENTS_AT_PEAK = 0.45
"""Share of a whole UNet's gradients that are there when its activations, if all are kept, are most;
counted like the table: 0.43 to 0.45."""
MAX_ROWS = 16
"""Pictures that are drawn at once: beyond it a device does not draw faster, and everybody waits for
the last one."""
TOKENS = 77
"""Of a chunk of a prompt."""
DROPOUT = 1.5
"""Each adapter keeps its own input and a mask: activations times this, at most."""


def training_bytes(
    spec: FineTuneSpec | DistillSpec, base: UNetShape, rung: Rung, *, pictures: int, on_gpu: bool
) -> int:
    """The most memory that a training on ``base`` holds at once, what the process itself needs
    included.

    On a GPU, what a stage does not need lies in the host's memory meanwhile: VAE and text encoders
    while it learns; and the UNet while it encodes, where memory is short.
    """
    if isinstance(spec, DistillSpec):
        return _distill_bytes(spec, base, rung, pictures, on_gpu)
    return _fine_tune_bytes(spec, base, rung, pictures, on_gpu)


def training_disk_bytes(
    spec: FineTuneSpec | DistillSpec, base: UNetShape, *, steps: int, pictures: int
) -> int:
    """Of what a training leaves: its result in two formats, two checkpoints, what is kept on the
    way, the cache."""
    if isinstance(spec, DistillSpec):
        return _distill_disk_bytes(spec, base, steps, pictures)
    return _fine_tune_disk_bytes(spec, base, steps, pictures)


def student_shape(spec: DistillSpec, teacher: UNetShape) -> UNetShape:
    """Of the UNet that is taught."""
    return UNetShape(LAYOUTS[spec.student.layout], teacher.widths, teacher.native_size)


def generate_bytes(spec: GenerateSpec, base: UNetShape, *, on_gpu: bool) -> int:
    """The least memory that it needs: with one picture at a time."""
    own, width = footprint(base).family, number_bytes(spec.precision, on_gpu)
    weights = (base.parameters + own.vae_parameters + own.text_parameters) * width
    decode = round(own.decode * _grown(spec, base, on_gpu))
    return RUNTIME_BYTES + weights + max(decode, drawn_bytes(spec, base, on_gpu=on_gpu))


def drawn_bytes(spec: GenerateSpec, base: UNetShape, *, on_gpu: bool, chunks: int = 1) -> int:
    """Of one picture that is drawn, both sides of guidance, each a text of so many chunks."""
    sides = 2 if spec.guidance > 1 else 1
    activations = round(footprint(base).family.forward * _grown(spec, base, on_gpu))
    text = chunks * text_numbers(base) * number_bytes(spec.precision, on_gpu)
    return sides * (activations + text)


def text_numbers(base: UNetShape) -> int:
    """Numbers that cross attention keeps of one chunk of text: keys and values of its tokens."""
    text_width = footprint(base).family.text_width
    sizes = base.layout.linear_sizes(base.widths, text_width, attention_only=True)
    return TOKENS * sum(outer for inner, outer in sizes if inner == text_width)


def _grown(spec: GenerateSpec, base: UNetShape, on_gpu: bool) -> float:
    """Activations beside those of the table, which are of the native size and two bytes."""
    pixels = (spec.width or base.native_size) * (spec.height or base.native_size)
    return pixels / base.native_size**2 * number_bytes(spec.precision, on_gpu) / 2


def trained_bytes(spec: FineTuneSpec, base: UNetShape) -> int:
    """Of a LoRA in training: weights, gradients, the optimizer's state, an average."""
    copies = 2 + (2 if spec.optimizer == "adamw" else 0) + (1 if spec.ema else 0)
    return copies * lora_bytes(spec.lora, base)


def lora_bytes(lora: LoraSpec, base: UNetShape) -> int:
    """Of its float32 matrices, in memory or in a file."""
    sizes = base.layout.linear_sizes(
        base.widths,
        footprint(base).family.text_width,
        attention_only=lora.targets == "attention",
    )
    return FLOAT32 * lora.rank * sum(inner + outer for inner, outer in sizes)


def generate_disk_bytes(spec: GenerateSpec, base: UNetShape) -> int:
    """Of its pictures."""
    size = _png_bytes(spec.width or base.native_size, spec.height or base.native_size)
    return len(spec.prompts) * spec.images * size


def number_bytes(precision: str, on_gpu: bool) -> int:
    """Of a base's weight."""
    if precision == "auto":
        return 2 if on_gpu else FLOAT32
    return FLOAT32 if precision == "fp32" else 2


def _fine_tune_bytes(
    spec: FineTuneSpec, base: UNetShape, rung: Rung, pictures: int, on_gpu: bool
) -> int:
    own, width = footprint(base).family, number_bytes(spec.precision, on_gpu)
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


def _distill_bytes(
    spec: DistillSpec, teacher: UNetShape, rung: Rung, pictures: int, on_gpu: bool
) -> int:
    student = student_shape(spec, teacher)
    own, width = footprint(teacher).family, number_bytes(spec.precision, on_gpu)
    side = spec.resolution or teacher.native_size
    grown = (side / teacher.native_size) ** 2 * width / 2
    unet, vae, text = (
        count * width for count in (teacher.parameters, own.vae_parameters, own.text_parameters)
    )
    gradients = FLOAT32 * student.parameters
    kept = FLOAT32 * student.parameters + _state_bytes(spec, student)
    beside = unet + kept + (0 if on_gpu else vae + text)
    aside = on_gpu and rung.checkpointing
    stages = [
        unet + vae + text,  # as they are loaded
        (0 if aside else unet) + vae + text + own.encode * grown,
        beside
        + _student_bytes(spec, student, rung, gradients, grown)
        + _rows(spec, teacher, rung, pictures),
        # the card: the student before and after in place of the one that learnt; each draws in turn
        beside
        - (FLOAT32 * student.parameters if on_gpu else 0)
        + 2 * student.parameters * width
        + (vae if on_gpu else 0)
        + max(own.decode, 2 * own.forward) * grown,
    ]
    if not on_gpu:  # cut out of a copy of the teacher, before the first step and after the last
        cut = FLOAT32 * teacher.parameters, width * (teacher.parameters + student.parameters)
        stages.append(beside + max(cut))
    return RUNTIME_BYTES + round(max(stages))


def _fine_tune_disk_bytes(spec: FineTuneSpec, base: UNetShape, steps: int, pictures: int) -> int:
    lora, side = lora_bytes(spec.lora, base), spec.resolution or base.native_size
    checkpoint = lora * (3 + (1 if spec.ema else 0))
    snapshots = (steps - 1) // spec.keep_every if spec.keep_every else 0
    rounds = steps // spec.sample.every + 1 + snapshots if spec.sample else 0
    drawn = rounds * len(spec.sample.prompts) * _png_bytes(side, side) if spec.sample else 0
    classes = spec.prior.images if spec.prior else 0
    rows = pictures * spec.views_per_picture + classes
    return lora * (2 + snapshots) + 2 * checkpoint + drawn + rows * _row_bytes(base, side)


def _distill_disk_bytes(spec: DistillSpec, teacher: UNetShape, steps: int, pictures: int) -> int:
    own, side = footprint(teacher).family, spec.resolution or teacher.native_size
    student = student_shape(spec, teacher)
    parameters = student.parameters
    unet, beside = 2 * parameters, 2 * (own.vae_parameters + own.text_parameters)
    checkpoint = FLOAT32 * parameters + _state_bytes(spec, student)
    snapshots = (steps - 1) // spec.keep_every if spec.keep_every else 0
    rounds = steps // spec.sample.every + 1 + snapshots if spec.sample else 0
    drawn = rounds * len(spec.sample.prompts) * _png_bytes(2 * side, side) if spec.sample else 0
    rows = pictures * spec.views_per_picture * _row_bytes(teacher, side)
    return unet * (2 + snapshots) + beside + 2 * checkpoint + drawn + rows


def _activations(spec: FineTuneSpec, base: UNetShape, rung: Rung) -> float:
    own = footprint(base)
    held = own.attention if spec.lora.targets == "attention" else own.transformer
    one = held.checkpointed if rung.checkpointing else held.kept
    samples = rung.micro_batch * (2 if spec.prior else 1)
    return one * samples * (DROPOUT if spec.lora.dropout else 1)


def _student_bytes(
    spec: DistillSpec, student: UNetShape, rung: Rung, gradients: int, grown: float
) -> float:
    """Activations and gradients of a step at their peak: as the ones go the others come."""
    held = _taught(student)
    least = gradients + held.checkpointed * rung.micro_batch * grown
    if rung.checkpointing:
        return least
    return max(least, GRADIENTS_AT_PEAK * gradients + held.kept * rung.micro_batch * grown)


def _state_bytes(spec: DistillSpec, student: UNetShape) -> int:
    """Of the optimizer, and of an average."""
    state = 2 * student.parameters if spec.optimizer == "adamw" else _taught(student).adafactor
    return FLOAT32 * (state + (student.parameters if spec.ema else 0))


def _taught(student: UNetShape) -> Taught:
    taught = footprint(student).student
    assert taught, "a layout that a spec may name"
    return taught


def _rows(spec: TrainingSpec, base: UNetShape, rung: Rung, pictures: int) -> int:
    if not rung.rows_on_device:
        return 0
    side = spec.resolution or base.native_size
    one = _row_bytes(base, side)
    prior = spec.prior if isinstance(spec, FineTuneSpec) else None
    classes = prior.images if prior else 0
    shelves = (pictures * spec.views_per_picture, classes)
    return sum(min(ROWS_BYTES, rows * one) for rows in shelves)


def row_bytes(side: int, latent_factor: int) -> int:
    """Of an encoded view: mean and deviation of four channels, float32."""
    return 2 * 4 * (side // latent_factor) ** 2 * FLOAT32


def _row_bytes(base: UNetShape, side: int) -> int:
    return row_bytes(side, footprint(base).family.latent_factor)


def _png_bytes(width: int, height: int) -> int:
    """At most: noise does not shrink."""
    return 3 * width * height
