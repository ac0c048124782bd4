"""Which jobs a card holds, by the table that the queue itself goes by."""

from collections.abc import Iterator

from api.doctor.cards import Card
from api.doctor.observation import Observation
from core import bases, estimate
from core.bases import BaseModel
from core.ladder import Rung, rungs
from core.specs import DistillSpec, FineTuneSpec, GenerateSpec

SHARE = 0.92
"""Of a card's memory that is left beside its driver and a desktop."""
_PICTURES = 20
_SDXL, _SSD_1B = bases.CATALOGUE["sdxl"], bases.CATALOGUE["ssd-1b"]


def on(card: Card) -> Iterator[Observation]:
    """At 1024 pixels; trainings on the fastest rung that fits."""
    for base in (_SSD_1B, _SDXL):
        draw = GenerateSpec.model_validate({"base": base.id, "prompt": "a"})
        needed = estimate.generate_bytes(draw, base, on_gpu=True)
        yield _finding(f"drawing with {base.id}", needed, card)
        lora = FineTuneSpec.model_validate(
            {"base": base.id, "dataset": "a", "instance_prompt": "a", "steps": 1}
        )
        yield _training(f"a LoRA on {base.id}", lora, base, card)
    taught = DistillSpec.model_validate({"teacher": "sdxl", "dataset": "a", "steps": 1})
    yield _training("distilling sdxl into ssd-1b", taught, _SDXL, card)


def _training(
    what: str, spec: FineTuneSpec | DistillSpec, base: BaseModel, card: Card
) -> Observation:
    needed = [(rung, _training_bytes(spec, base, rung)) for rung in rungs(spec)]
    fitting = [each for each in needed if each[1] <= card.memory_bytes * SHARE]
    rung, least = (fitting or needed)[0 if fitting else -1]
    slowly = f", {rung}" if fitting and rung != needed[0][0] else ""
    return _finding(what, least, card, slowly)


def _training_bytes(spec: FineTuneSpec | DistillSpec, base: BaseModel, rung: Rung) -> int:
    return estimate.training_bytes(spec, base, rung, pictures=_PICTURES, on_gpu=True)


def _finding(what: str, needed: int, card: Card, how: str = "") -> Observation:
    about = f"{needed / 1e9:.1f} GB"
    if needed <= card.memory_bytes * SHARE:
        return Observation("good", "fits", f"{what}: {about}{how}")
    return Observation("note", "fits", f"{what} does not fit: it takes {about}.")
