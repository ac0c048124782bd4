"""A student cut out of its teacher: every key accounted for, at real size and at toy size."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch

from core.diffusion.surgery import Cut, student_from_teacher
from core.errors import LayoutMismatch
from core.layouts import SDXL, SSD_1B, VEGA, Layout, find_layout
from tests.support import real_size
from tests.support.nano import load


def cut_at_real_size(layout: Layout, layers: Sequence[int]) -> Cut:
    with torch.device("meta"):
        teacher = real_size.unet(SDXL)
    return student_from_teacher(teacher, layout, layers)


@pytest.mark.parametrize("layers", [(0, 1, 2, 3), (0, 1, 2, 6)])
def test_ssd_1b_is_944_of_sdxls_1680_keys(layers: Sequence[int]) -> None:
    cut = cut_at_real_size(SSD_1B, layers)
    assert len(cut.source) == len(set(cut.source.values())) == 944
    assert len(cut.dropped) == 736
    assert sum(weight.numel() for weight in cut.student.parameters()) == SSD_1B.parameters
    assert find_layout(cut.student.state_dict()) == (SSD_1B,)
    removed = {
        match[0] for key in cut.dropped if (match := re.match(r".+\.transformer_blocks\.\d+", key))
    }
    assert len(removed) == 36
    resnets = {match[0] for key in cut.dropped if (match := re.match(r".+\.resnets\.\d", key))}
    assert resnets == {"mid_block.resnets.1"}


def test_only_a_stack_that_shrinks_is_renamed() -> None:
    assert cut_at_real_size(SSD_1B, (0, 1, 2, 3)).renamed == {}
    renamed = cut_at_real_size(SSD_1B, (0, 1, 2, 6)).renamed
    stacks = {key.rpartition(".transformer_blocks")[0] for key in renamed}
    assert stacks == {
        *("down_blocks.2.attentions.0", "down_blocks.2.attentions.1"),
        *("up_blocks.0.attentions.0", "up_blocks.0.attentions.1"),
    }
    assert {(re.search(r"blocks\.(\d)\.(?!.*blocks)", key) or [""])[1] for key in renamed} == {"3"}
    assert all(source == key.replace("_blocks.3.", "_blocks.6.") for key, source in renamed.items())


def test_vega_takes_two_of_ten() -> None:
    cut = cut_at_real_size(VEGA, (0, 5))
    assert sum(weight.numel() for weight in cut.student.parameters()) == VEGA.parameters
    assert len(cut.source) == len(cut.student.state_dict())


@pytest.mark.parametrize("layers", [(0, 1, 2), (0, 1, 2, 10), (3, 2, 1, 0), (0, 0, 1, 2), ()])
def test_layers_that_are_no_choice(layers: Sequence[int]) -> None:
    with pytest.raises(LayoutMismatch, match="must name 4 of the teacher's 10 blocks"):
        cut_at_real_size(SSD_1B, layers)


def test_the_weights_are_the_teachers_and_stay_apart(nano_folders: Mapping[str, Path]) -> None:
    teacher = load(nano_folders["nano-sdxl"]).unet
    cut = student_from_teacher(teacher, SSD_1B, (0, 1, 2, 6))
    theirs, ours = teacher.state_dict(), cut.student.state_dict()
    assert all(torch.equal(ours[key], theirs[source]) for key, source in cut.source.items())
    with torch.no_grad():
        for weight in cut.student.parameters():
            weight.zero_()
    assert all(theirs[source].any() for source in cut.source.values() if "norm" in source)


def test_a_teacher_of_another_layout_is_refused(nano_folders: Mapping[str, Path]) -> None:
    teacher = load(nano_folders["nano-ssd-1b"]).unet
    with pytest.raises(LayoutMismatch, match="which the teacher lacks"):
        student_from_teacher(teacher, SSD_1B, (0, 1, 2, 6))
