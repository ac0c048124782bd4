"""A student cut out of a teacher of SDXL's layout: an explicit map, copied strictly.

Each module of the student is one of the teacher's, most by the same name. Where a transformer has
fewer blocks than the teacher's, the map says which of the teacher's blocks they are. SSD-1B keeps
34 of SDXL's 70 blocks and one of the middle's two ResNets: Gupta et al., arXiv:2401.02677, whose
announcement says 40 where the architectures differ by 36.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from core.errors import LayoutMismatch
from core.layouts import SDXL, Layout

_BLOCK = re.compile(r"(?P<stack>.+\.transformer_blocks)\.(?P<place>\d+)\.(?P<rest>.+)")


@dataclass(frozen=True)
class Cut:
    """``student`` holds copies. ``source`` is the teacher's key for each of its own, ``dropped``
    are the teacher's keys that it has no use for."""

    student: UNet2DConditionModel
    source: Mapping[str, str]
    dropped: frozenset[str]

    @property
    def renamed(self) -> dict[str, str]:
        """Keys that are called otherwise in the teacher."""
        return {key: source for key, source in self.source.items() if key != source}


def student_from_teacher(
    teacher: UNet2DConditionModel, layout: Layout, layers: Sequence[int]
) -> Cut:
    """A UNet of ``layout`` with the teacher's widths, dtype and weights.

    Args:
        teacher: of SDXL's layout, any widths, on any device.
        layout: the student's.
        layers: which blocks of a transformer of ten the student keeps, in order, where it has
            fewer; as many as it has. (0, 1, 2, 3) is what copying by name gives, (0, 1, 2, 6) what
            Segmind's SSD-1B looks like. Of a transformer of two it keeps the first.

    Raises:
        LayoutMismatch: ``layers`` is not such a choice, or a key or shape of the two differs
            otherwise than the map says; names it.
    """
    source_of = _sources(layout, layers)
    with torch.device("meta"):
        student = UNet2DConditionModel.from_config({**teacher.config, **layout.unet_overrides})
    theirs = teacher.state_dict()
    source = {key: _source(key, source_of) for key in student.state_dict()}
    copied: dict[str, Tensor] = {}
    for key, tensor in student.state_dict().items():
        found = theirs.get(source[key])
        if found is None or found.shape != tensor.shape:
            raise LayoutMismatch(
                f"`{key}` of the student is to come from `{source[key]}`, which the teacher "
                f"{'lacks' if found is None else 'has in another shape'}."
            )
        copied[key] = found.clone()
    student.load_state_dict(copied, assign=True)
    student.eval().requires_grad_(False)
    return Cut(student, source, frozenset(theirs) - frozenset(source.values()))


def _source(key: str, source_of: Mapping[str, Sequence[int]]) -> str:
    match = _BLOCK.fullmatch(key)
    if match is None:
        return key
    place = source_of[match["stack"]][int(match["place"])]
    return f"{match['stack']}.{place}.{match['rest']}"


def _sources(layout: Layout, layers: Sequence[int]) -> dict[str, Sequence[int]]:
    """For each stack of the student's blocks, the teacher's block that each of them is."""
    depths, deepest = layout.stacks(), SDXL.stacks()
    sources: dict[str, Sequence[int]] = {}
    for stack, depth in depths.items():
        whole = deepest[stack]
        if depth == whole or whole == 2:
            sources[stack] = range(depth)
        elif len(layers) == depth and list(layers) == sorted({*layers} & {*range(whole)}):
            sources[stack] = layers
        else:
            raise LayoutMismatch(
                f"`layers` {list(layers)} must name {depth} of the teacher's {whole} blocks, from "
                f"0 to {whole - 1}, in order."
            )
    return sources
