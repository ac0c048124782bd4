"""What is asked of the engine, and what it tells meanwhile."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.specs import GenerateSpec


@dataclass(frozen=True)
class Lora:
    path: Path
    sha256: str
    weight: float


@dataclass(frozen=True)
class Start:
    """A picture to begin with."""

    path: Path
    sha256: str


@dataclass(frozen=True)
class Request:
    """``spec`` with its seed, width and height filled in; ``out``: the folder for the pictures."""

    spec: GenerateSpec
    loras: Sequence[Lora]
    out: Path
    start: Start | None = None

    @property
    def count(self) -> int:
        """Of pictures."""
        return len(self.spec.prompts) * self.spec.images


@dataclass(frozen=True)
class Picture:
    """A finished picture; ``index`` counts through its request from 0."""

    path: Path
    prompt: str
    seed: int
    index: int


@dataclass(frozen=True)
class Progress:
    """Of request number ``request``: denoising steps taken for all of its pictures, ``at_once`` of
    which are drawn together; ``picture`` once one is on disk."""

    request: int
    step: int
    steps: int
    at_once: int
    picture: Picture | None = None


@dataclass(frozen=True)
class Failure:
    """Nothing more comes of request number ``request``."""

    request: int
    error: Exception
