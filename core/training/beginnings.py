"""The UNet that a distillation begins with: cut out of its teacher, or trained before."""

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel

from core.diffusion import surgery
from core.diffusion.components import Components, load_unet
from core.errors import LayoutMismatch
from core.layouts import LAYOUTS, find_layout
from core.specs import StudentSpec

CPU = torch.device("cpu")


def fresh(
    student: StudentSpec,
    start: Path | None,
    components: Components,
    dtype: torch.dtype = torch.float32,
) -> UNet2DConditionModel:
    """A student before its first step, on the CPU, the same each time.

    Args:
        student: layout, and layers where it is cut out of its teacher.
        start: folder of the UNet that it begins with; None: it is cut out of the teacher.
        components: the teacher's. The cut is made from its file, which may hold more than the
            precision that it computes in.
        dtype: of the student.

    Raises:
        LayoutMismatch: ``start`` is of another layout or size, or the teacher cannot be cut so.
    """
    if start is None:
        teacher = load_unet(components.unet_folder, device=CPU, dtype=dtype)
        cut = surgery.student_from_teacher(teacher, LAYOUTS[student.layout], student.layers)
        return cut.student
    return _pretrained(student, load_unet(start, device=CPU, dtype=dtype), components)


def _pretrained(
    student: StudentSpec, unet: UNet2DConditionModel, components: Components
) -> UNet2DConditionModel:
    if (layouts := find_layout(unet.state_dict())) != (LAYOUTS[student.layout],):
        found = ", ".join(layout.id for layout in layouts) or "no known layout"
        raise LayoutMismatch(
            f"The weights to begin with are of {found}, `student.layout` is {student.layout}."
        )
    theirs, own = components.unet.config, unet.config
    for name in ("block_out_channels", "cross_attention_dim", "in_channels"):
        if own[name] != theirs[name]:
            raise LayoutMismatch(
                f"The weights to begin with have `{name}` {own[name]}, the teacher has "
                f"{theirs[name]}: their features cannot be compared."
            )
    return unet
