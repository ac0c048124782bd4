"""What a check found: how bad it is, of what, and a sentence that says what to do."""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["good", "note", "bad"]


@dataclass(frozen=True)
class Observation:
    """``bad``: jobs will fail, or nothing starts. ``note``: worth knowing."""

    verdict: Verdict
    about: str
    says: str
