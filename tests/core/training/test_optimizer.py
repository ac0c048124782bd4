"""The optimizers against those that they are named after."""

import pytest
import torch
from torch import nn
from transformers.optimization import Adafactor

from core.specs import FineTuneSpec
from core.training import optimizer

GO, SKIP = torch.tensor(False), torch.tensor(True)


def spec_with(**fields: object) -> FineTuneSpec:
    return FineTuneSpec.model_validate(
        {"base": "b", "dataset": "d", "instance_prompt": "sks", **fields}
    )


def matrix() -> nn.Parameter:
    return nn.Parameter(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)))


def gradient(step: int) -> torch.Tensor:
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(step))


@pytest.mark.parametrize("kind", ["adamw", "adafactor"])
def test_the_groups_hold_what_was_asked_for(kind: str) -> None:
    spec = spec_with(optimizer=kind, learning_rate=3e-4, weight_decay=0.7)
    made = optimizer.build([matrix()], spec)
    (group,) = made.param_groups
    assert (group["lr"], group["weight_decay"]) == (3e-4, 0.7)
    if kind == "adamw":
        assert (group["betas"], group["eps"], group["fused"]) == ((0.9, 0.999), 1e-8, True)
    else:
        assert (group["scale_parameter"], group["relative_step"]) == (False, False)


@pytest.mark.parametrize("kind", ["adamw", "adafactor"])
def test_steps_are_those_of_the_library(kind: str) -> None:
    ours, theirs = matrix(), matrix()
    spec = spec_with(optimizer=kind, learning_rate=1.0, weight_decay=0.3)
    made = optimizer.build([ours], spec)
    plain: torch.optim.Optimizer
    if kind == "adamw":
        plain = torch.optim.AdamW([theirs], lr=1.0, weight_decay=0.3)
    else:
        plain = Adafactor(  # type: ignore[no-untyped-call]
            [theirs], lr=1.0, weight_decay=0.3, scale_parameter=False, relative_step=False
        )
    for step, rate in enumerate((0.1, 0.05, 0.2)):
        ours.grad, theirs.grad = gradient(step), gradient(step)
        plain.param_groups[0]["lr"] = rate
        plain.step()
        optimizer.step_unless(made, GO, rate)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    assert ours.grad is None
    assert made.param_groups[0]["weight_decay"] == 0.3


@pytest.mark.parametrize("kind", ["adamw", "adafactor"])
def test_a_step_that_is_skipped_moves_nothing(kind: str) -> None:
    weight = matrix()
    made = optimizer.build([weight], spec_with(optimizer=kind, weight_decay=0.3))
    weight.grad = gradient(0)
    optimizer.step_unless(made, GO, 0.1)
    kept = weight.detach().clone()
    weight.grad = torch.full((6, 4), torch.nan)
    optimizer.step_unless(made, SKIP, 0.1)
    assert torch.equal(weight.detach(), kept)
