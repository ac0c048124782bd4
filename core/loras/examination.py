"""A file that somebody sent as a LoRA: everything that can be wrong with it, before it is kept.

In the order of what it costs: its first bytes, its header, its names and shapes, its values.
Nothing is unpickled and no tensor is built.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from core.errors import Unprocessable
from core.files import safetensors_header, safetensors_values
from core.files.safetensors_header import Damaged, Entry, Header
from core.layouts import LAYOUTS
from core.loras import refusals, values
from core.loras.fit import Fit, targets_of
from core.loras.names import Dialect, Place, modules
from core.loras.pairs import Keys, dialect_of, pairs_of
from core.loras.scaling import Scaling

MAX_RANK = 512
"""Twice what trainings here take: above it a file is no longer small."""
MAX_TRIGGER = 200
_HEAD_BYTES = 512
_FAMILY = ("sdxl", "stable-diffusion-xl")


@dataclass(frozen=True)
class Examined:
    """``layout`` is None where several fit. ``facts`` are what an artifact tells as metadata."""

    format: Dialect
    layout: str | None
    facts: dict[str, Any]


def examine(file: BinaryIO, filename: str) -> Examined:
    """What is in a file that is a LoRA for a model of the family.

    Raises:
        Unprocessable, LayoutMismatch: it is none; names what is wrong and the way out.
    """
    header = _header(file, filename)
    pairs = pairs_of(header.tensors)
    if not pairs:
        raise Unprocessable(f"{filename} holds no tensor at all.", code="not_a_lora")
    for place, keys in pairs.items():
        if place not in modules():
            raise refusals.unknown_module(keys.a)
        _require_shapes(header, keys)
    fit = Fit.of({place: _size(header, keys) for place, keys in pairs.items()})
    for key, entry in header.tensors.items():
        values.require_finite(file, key, entry)
    fit, warnings = _settled(fit, header.metadata)
    layout = fit.layouts[0] if len(fit.layouts) == 1 else None
    facts = {
        "rank": _one(_rank(header, keys) for keys in pairs.values()),
        "alpha": _one(_alphas(file, header, pairs)),
        "trigger": _trigger(header.metadata),
        **_kind(pairs, layout),
        **fit.facts(),
        "warnings": warnings,
    }
    return Examined(dialect_of(header.tensors), layout, facts)


def _kind(pairs: Mapping[Place, Keys], layout: str | None) -> dict[str, Any]:
    """What a training that begins with it must be like."""
    unet = [place.module for place in pairs if place.model == "unet"]
    return {
        "models": sorted({place.model for place in pairs}),
        "dora": any(keys.magnitude for keys in pairs.values()),
        "targets": targets_of(unet, layout) if layout else None,
    }


def _alphas(file: BinaryIO, header: Header, pairs: Mapping[Place, Keys]) -> Iterator[float]:
    scaling = Scaling.of(header.metadata)
    for place, keys in pairs.items():
        own = values.scalar(file, header.tensors[keys.alpha]) if keys.alpha else None
        yield scaling.alpha(place, own=own, rank=_rank(header, keys))


def _header(file: BinaryIO, filename: str) -> Header:
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    if head[8:9] != b"{":
        raise refusals.other_file(filename, head)
    try:
        return safetensors_header.read(file)
    except Damaged as error:
        raise Unprocessable(
            f"{filename} is damaged or incomplete: {error}. Fetch or save it again.",
            code="truncated",
        ) from error


def _require_shapes(header: Header, keys: Keys) -> None:
    for key in (keys.a, keys.b, keys.alpha, keys.magnitude):
        if key and header.tensors[key].dtype not in safetensors_values.DTYPES:
            raise refusals.malformed(
                f"`{key}` is of dtype {header.tensors[key].dtype}: save the LoRA in F16, BF16 or "
                "F32."
            )
    a, b = _matrix(header, keys.a), _matrix(header, keys.b)
    if a[0] != b[1]:
        raise refusals.malformed(
            f"`{keys.a}` is of rank {a[0]} and `{keys.b}` of rank {b[1]}: they do not belong "
            "together."
        )
    if not 1 <= a[0] <= MAX_RANK or not a[1] or not b[0]:
        raise refusals.malformed(
            f"`{keys.a}` is of shape {a}: ranks from 1 to {MAX_RANK} are taken. kohya's "
            "resize_lora.py makes a smaller one."
        )
    if keys.alpha and header.tensors[keys.alpha].shape not in ((), (1,)):
        raise refusals.malformed(f"`{keys.alpha}` is not one number.")
    if keys.magnitude:
        _require_magnitude(keys.magnitude, header.tensors[keys.magnitude], b[0])


def _matrix(header: Header, key: str) -> tuple[int, int]:
    """A linear layer's may come as a convolution of one pixel."""
    shape = header.tensors[key].shape
    if len(shape) == 4 and shape[2:] != (1, 1):
        raise refusals.convolution(key)
    if len(shape) not in (2, 4):
        raise refusals.malformed(f"`{key}` is of shape {shape}, which is no matrix.")
    return shape[0], shape[1]


def _require_magnitude(key: str, entry: Entry, outputs: int) -> None:
    rest = entry.shape[1:]
    if entry.shape[:1] != (outputs,) or any(side != 1 for side in rest):
        raise refusals.malformed(
            f"`{key}` is of shape {entry.shape}; a length for each of the {outputs} outputs is "
            "taken. LyCORIS writes that with `wd_on_output`."
        )


def _size(header: Header, keys: Keys) -> tuple[int, int]:
    return _matrix(header, keys.a)[1], _matrix(header, keys.b)[0]


def _rank(header: Header, keys: Keys) -> int:
    return _matrix(header, keys.a)[0]


def _one(numbers: Iterable[float]) -> float | None:
    """What all agree on."""
    different = set(numbers)
    return different.pop() if len(different) == 1 else None


def _trigger(metadata: Mapping[str, str]) -> str | None:
    phrase = metadata.get("modelspec.trigger_phrase", "")
    return phrase[:MAX_TRIGGER] if phrase.isprintable() and phrase else None


def _settled(fit: Fit, metadata: Mapping[str, str]) -> tuple[Fit, list[dict[str, str]]]:
    """What our own metadata says decides between layouts that fit; what remains open is warned
    of."""
    declared = metadata.get("stillroom.layout")
    if declared in fit.layouts:
        fit = Fit((declared,), fit.widths)
    told = []
    if len(fit.layouts) > 1:
        told.append(
            f"Its modules are in {_listed(fit.layouts)} alike, where the same names are other "
            "blocks, and the file does not say which one it is for: use it with the base it was "
            "trained on."
        )
    if declared in LAYOUTS and declared not in fit.layouts:
        told.append(
            f"The file says that it is for {declared}, and its modules are those of "
            f"{_listed(fit.layouts)}: use it with the base it was trained on."
        )
    other = metadata.get("modelspec.architecture") or metadata.get("ss_base_model_version") or ""
    if other and not any(name in other.lower() for name in _FAMILY) and other.isprintable():
        told.append(
            f"The file says that it was trained on {other[:MAX_TRIGGER]!r}, which is not of the "
            "SDXL family, though its modules are."
        )
    return fit, [{"code": "layout_ambiguous", "detail": sentence} for sentence in told]


def _listed(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
