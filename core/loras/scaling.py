"""How much a module's update counts: alpha / rank, from wherever a file tells alpha.

A tensor beside the matrices comes first, then peft's configuration in the metadata; where neither
tells, alpha is the rank, as diffusers takes it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, sqrt
from typing import Any

from core.loras import refusals
from core.loras.names import Place

METADATA = "lora_adapter_metadata"
"""Where diffusers keeps peft's configuration of each model, under the model's name and a dot."""


@dataclass(frozen=True)
class Scaling:
    """peft's configuration, as a file's metadata has it."""

    told: Mapping[str, Any]

    @classmethod
    def of(cls, metadata: Mapping[str, str]) -> "Scaling":
        """Raises Unprocessable where it is not what peft writes."""
        try:
            told = json.loads(metadata.get(METADATA, "{}"))
        except (ValueError, RecursionError) as error:
            raise _unreadable("is no JSON") from error
        if not isinstance(told, dict):
            raise _unreadable("is no JSON object")
        return cls(told)

    def alpha(self, place: Place, *, own: float | None, rank: int) -> float:
        """``own``: of the tensor beside the matrices."""
        if own is not None:
            return own
        told = self.told.get(f"{place.model}.lora_alpha")
        patterns = self._table(f"{place.model}.alpha_pattern").items()
        told = next((alpha for name, alpha in patterns if _is_meant(name, place.module)), told)
        return float(rank) if told is None else _number(told)

    def scale(self, place: Place, *, own: float | None, rank: int) -> float:
        """What B A is multiplied by."""
        stabilized = own is None and self.told.get(f"{place.model}.use_rslora") is True
        return self.alpha(place, own=own, rank=rank) / (sqrt(rank) if stabilized else rank)

    def _table(self, name: str) -> dict[str, Any]:
        table = self.told.get(name) or {}
        if not isinstance(table, dict):
            raise _unreadable(f"has no table under `{name}`")
        return table


def _is_meant(pattern: str, module: str) -> bool:
    """peft takes patterns for regular expressions, and writes names: a stranger's expressions are
    not run."""
    path = module.removeprefix("text_model.")
    return f".{path}".endswith(f".{pattern.removeprefix('text_model.')}")


def _number(told: Any) -> float:
    if type(told) not in (int, float) or not abs(told) < 1e9 or not isfinite(told):
        raise _unreadable("has an alpha that is no number")
    return float(told)


def _unreadable(what: str) -> Exception:
    return refusals.malformed(
        f"`{METADATA}` in the file's metadata {what}: save the LoRA again, or without it."
    )
