"""Which features a student is compared by, and that they are those of one pass."""

import pytest
import torch
from diffusers import UNet2DConditionModel

from core.diffusion.features import places, recorded
from core.diffusion.probe import probe
from core.layouts import SDXL, SSD_1B, VEGA, Layout
from core.nano import shape
from tests.support import real_size


def unet(layout: Layout) -> UNet2DConditionModel:
    torch.manual_seed(3)
    made: UNet2DConditionModel = shape.unet(layout)
    return made


@pytest.mark.parametrize("layout", [SSD_1B, VEGA])
def test_26_places_that_a_teacher_has_too(layout: Layout) -> None:
    with torch.device("meta"):
        student, teacher = real_size.unet(layout), real_size.unet(SDXL)
    found = places(student)
    assert len(found) == 26
    assert found == places(teacher)
    down, up = (sum(place.startswith(part) for place in found) for part in ("down", "up"))
    assert (down, up) == (6 + 4, 9 + 6)


def test_places_are_in_the_order_that_data_flows() -> None:
    made = unet(SSD_1B)
    with torch.no_grad(), recorded(made, places(made)) as features:
        probe(made)
    assert tuple(features) == places(made)


def test_the_students_middle_is_one_resnet() -> None:
    made = unet(SSD_1B)
    with torch.no_grad(), recorded(made, ["mid_block", "mid_block.resnets.0"]) as features:
        probe(made)
    assert torch.equal(features["mid_block"], features["mid_block.resnets.0"])


@pytest.mark.parametrize("again", [False, True])
def test_a_second_pass_takes_the_firsts_place(again: bool) -> None:
    """With checkpointing, backward runs modules once more, when nobody records any longer."""
    made = unet(SSD_1B).train()
    if again:
        made.enable_gradient_checkpointing()
    with recorded(made, places(made)) as features:
        probe(made)
        kept = dict(features)
        output = probe(made)
    assert features.keys() == kept.keys()
    assert all(features[place] is not kept[place] for place in kept)
    seen = dict(features)
    torch.autograd.backward(output.sum())
    assert all(features[place] is seen[place] for place in seen)
    assert not any(module._forward_hooks for module in made.modules())
