"""What a recipe yields: where it is, how it goes, what it has made so far."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class SamplePicture:
    """A picture drawn while training runs, after step ``step``."""

    path: Path
    prompt: str
    seed: int
    step: int


@dataclass(frozen=True)
class StepReport:
    """One look at a run. Whoever iterates may stop at any report by closing the generator.

    ``loss`` is the mean over the steps since it was last read, None when it was not read now;
    ``seconds_per_step`` is of the steps alone, without preparation, samples and checks.
    """

    step: int  # 0 while preparing
    steps: int
    message: str
    loss: float | None = None
    terms: Mapping[str, float] = field(default_factory=dict)  # of the loss, read when it is
    learning_rate: float = 0.0
    seconds_per_step: float | None = None
    samples: tuple[SamplePicture, ...] = ()
    note: str | None = None  # worth remembering when the run is over
    checkpoint: Path | None = None  # a folder to go on from after this step
    snapshot: Path | None = None  # what was learnt by this step, to be kept
    outputs: dict[str, Path] = field(default_factory=dict)  # filled by the last report alone
