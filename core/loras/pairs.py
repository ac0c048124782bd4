"""The keys of a LoRA's file, sorted by the module that they change."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from core.loras import refusals
from core.loras.names import Dialect, Name, Part, Place, name_of, other_half


@dataclass(frozen=True)
class Keys:
    """Where a file keeps the matrices of one module, its alpha, and DoRA's lengths."""

    a: str
    b: str
    alpha: str | None
    magnitude: str | None


def pairs_of(keys: Iterable[str]) -> dict[Place, Keys]:
    """Raises LayoutMismatch or Unprocessable at a key that means nothing, at half a pair, and at
    two keys for one matrix; names it."""
    found: dict[Place, dict[Part, str]] = {}
    for key in keys:
        name = name_of(key)
        parts = found.setdefault(name.place, {})
        if name.part in parts:
            raise refusals.malformed(
                f"`{parts[name.part]}` and `{key}` are the same matrix: leave one of them out."
            )
        parts[name.part] = key
    return {place: _whole(parts) for place, parts in found.items()}


def dialect_of(keys: Iterable[str]) -> Dialect:
    """That of most keys: diffusers itself writes attention in its own and the rest in peft's."""
    names: list[Name] = [name_of(key) for key in keys]
    return Counter(name.dialect for name in names).most_common(1)[0][0]


def _whole(parts: dict[Part, str]) -> Keys:
    a, b = parts.get("a"), parts.get("b")
    if a and b:
        return Keys(a, b, parts.get("alpha"), parts.get("magnitude"))
    if half := a or b:
        raise refusals.malformed(
            f"The LoRA lacks `{other_half(half)}`, the other half of `{half}`: save it whole."
        )
    raise refusals.malformed(
        f"`{next(iter(parts.values()))}` stands without the matrices that it is for: save the LoRA "
        "again, whole."
    )
