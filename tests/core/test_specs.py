"""What a spec refuses by itself."""

import pytest
from pydantic import ValidationError

from core.specs import LCM_STEPS, GenerateSpec


def drawing(**fields: object) -> GenerateSpec:
    return GenerateSpec.model_validate({"base": "ssd-1b", "prompt": "a dog", **fields})


def test_lcm_takes_no_more_steps_than_its_teacher_took() -> None:
    """diffusers raises where more are asked for, which is late."""
    assert drawing(scheduler="lcm", steps=LCM_STEPS).steps == LCM_STEPS
    with pytest.raises(ValidationError, match="`lcm` takes at most 50 `steps`, not 51"):
        drawing(scheduler="lcm", steps=LCM_STEPS + 1)
    assert drawing(scheduler="euler", steps=150).steps == 150
