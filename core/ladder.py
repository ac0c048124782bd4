"""What a training gives up to fit into memory, a rung at a time: never what it learns from.

A rung further down takes more time and less memory. Another split of a step into micro-batches
changes the last bits of a sum, and which entries a LoRA's dropout drops; nothing else.
"""

from dataclasses import dataclass
from typing import TypeVar

from core.specs import TrainingSpec

S = TypeVar("S", bound=TrainingSpec)


@dataclass(frozen=True)
class Rung:
    """``rows_on_device``: encoded pictures stay there once read. ``checkpointing``: activations are
    computed again in place of being kept. ``micro_batch``: pictures in one forward pass."""

    rows_on_device: bool
    checkpointing: bool
    micro_batch: int

    def __str__(self) -> str:
        said = [f"batches of {self.micro_batch}"]
        said += ["activations computed again"] if self.checkpointing else []
        said += [] if self.rows_on_device else ["encoded pictures read anew"]
        return ", ".join(said)

    def split(self, spec: S) -> S:
        """The spec in micro-batches of this rung, with as many samples a step."""
        passes = spec.accumulation * spec.batch_size // self.micro_batch
        return spec.model_copy(
            update={"batch_size": self.micro_batch, "accumulation": passes},
        )


def rungs(spec: TrainingSpec) -> list[Rung]:
    """From the fastest to the smallest. What the spec settles stays as it says: checkpointing where
    it is not ``auto``."""
    asked, batch = spec.gradient_checkpointing, spec.batch_size
    found = [Rung(keep, asked is True, batch) for keep in (True, False)]
    if asked == "auto":
        found.append(Rung(False, True, batch))
    smaller = [size for size in range(batch - 1, 0, -1) if batch % size == 0]
    return found + [Rung(False, asked is not False, size) for size in smaller]
