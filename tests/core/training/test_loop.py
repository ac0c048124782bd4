"""The loop on losses small enough to reckon with by hand."""

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from core.errors import NonFiniteLoss
from core.specs import FineTuneSpec
from core.training import loop, optimizer
from core.training.loss import Loss
from core.training.trainee import enrol


def spec_with(**fields: object) -> FineTuneSpec:
    return FineTuneSpec.model_validate(
        {"base": "b", "dataset": "d", "instance_prompt": "sks", "steps": 100, **fields}
    )


@pytest.fixture
def weight() -> nn.Parameter:
    return nn.Parameter(torch.tensor([1.0, -2.0]))


def run(
    weight: nn.Parameter, micro_loss: loop.MicroLoss, spec: FineTuneSpec, steps: int
) -> Iterator[loop.Progress]:
    return loop.run(enrol({"weight": weight}, spec), micro_loss, spec, steps)


def test_equals_torchs_own_adamw(weight: nn.Parameter) -> None:
    spec = spec_with(learning_rate=0.1, weight_decay=0.5, max_grad_norm=100, schedule="linear")
    list(run(weight, lambda step, micro: Loss(weight.square().sum()), spec, steps=5))
    plain = nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = torch.optim.AdamW([plain], lr=0.1, weight_decay=0.5)
    for step in range(5):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 5)
        optimizer.zero_grad()
        torch.autograd.backward(plain.square().sum())
        optimizer.step()
    torch.testing.assert_close(weight, plain)


def test_micro_batches_add_up_to_their_mean(weight: nn.Parameter) -> None:
    seen: list[tuple[int, int]] = []

    def micro_loss(step: int, micro: int) -> Loss:
        seen.append((step, micro))
        return Loss(weight.sum() * (micro + 1))

    spec = spec_with(accumulation=3)
    reports = list(run(weight, micro_loss, spec, steps=2))
    assert seen == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert reports[-1].loss == pytest.approx(-1.0 * 2, rel=1e-3)


def test_gradients_are_cut_to_their_norm(
    weight: nn.Parameter, monkeypatch: pytest.MonkeyPatch
) -> None:
    norms: list[float] = []

    def record(_: torch.optim.Optimizer, skip: Tensor, rate: float) -> None:
        assert weight.grad is not None
        norms.append(weight.grad.norm().item())

    monkeypatch.setattr(optimizer, "step_unless", record)
    list(run(weight, lambda *_: Loss(50 * weight.sum()), spec_with(max_grad_norm=0.25), 1))
    assert norms == [pytest.approx(0.25, rel=1e-4)]


@pytest.mark.parametrize("kind", ["adamw", "adafactor"])
@pytest.mark.parametrize("poison", ["loss", "gradient"])
def test_a_loss_that_is_not_finite_ends_with_the_last_good_weights(
    poison: str, kind: str, weight: nn.Parameter
) -> None:
    kept: list[Tensor] = []

    def micro_loss(step: int, micro: int) -> Loss:
        kept.append(weight.detach().clone())
        if step < 3:
            return Loss(weight.square().sum())
        if poison == "loss":
            return Loss(weight.sum() * math.nan)
        # A root at zero: the loss is 0, its gradient is not finite.
        return Loss((weight - weight.detach()).square().sum().sqrt())

    with pytest.raises(NonFiniteLoss, match="at step 4"):
        list(run(weight, micro_loss, spec_with(learning_rate=0.1, optimizer=kind), steps=20))
    assert torch.equal(weight.detach(), kept[3])
    assert not torch.equal(kept[3], kept[2])


def test_in_half_precision_a_gradient_that_overflows_costs_a_step(weight: nn.Parameter) -> None:
    trainee = enrol({"weight": weight}, spec_with(learning_rate=0.1), torch.float16)
    kept: list[Tensor] = []

    def micro_loss(step: int, micro: int) -> Loss:
        kept.append(weight.detach().clone())
        # the gradient passes through half precision, where 65504 is the largest number
        return Loss((weight.half() * (100 if step == 2 else 0.01)).float().sum())

    list(loop.run(trainee, micro_loss, spec_with(learning_rate=0.1), steps=4))
    kept.append(weight.detach())
    moved = [not torch.equal(kept[step], kept[step + 1]) for step in range(4)]
    assert moved == [False, True, False, True]  # the first scale, 65536, is too large by itself
    assert trainee.scaler.get_scale() == 65536 / 4


def test_the_device_is_read_every_few_steps_only(
    weight: nn.Parameter, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[int] = []
    for name in ("item", "tolist"):
        read = getattr(Tensor, name)

        def counting(self: Tensor, read: Callable[[Tensor], object] = read) -> object:
            reads.append(1)
            return read(self)

        monkeypatch.setattr(Tensor, name, counting)
    reports = list(run(weight, lambda *_: Loss(weight.square().sum()), spec_with(), steps=25))
    assert [report.step for report in reports if report.loss is not None] == [10, 20, 25]
    assert len(reads) == 2 * 3


def test_losses_that_are_read_are_means_since_the_last(weight: nn.Parameter) -> None:
    losses = iter(range(1, 16))
    taken = run(weight, lambda *_: Loss(weight.sum() * 0 + next(losses)), spec_with(), steps=15)
    assert [report.loss for report in taken if report.loss is not None] == [5.5, 13.0]


def rates(steps: int, **fields: object) -> Iterator[float]:
    spec = spec_with(learning_rate=1.0, **fields)
    return (loop.learning_rate(spec, step, steps) for step in range(steps))


def test_learning_rates() -> None:
    assert list(rates(3)) == [1, 1, 1]
    assert list(rates(4, warmup_steps=2)) == [0.5, 1, 1, 1]
    assert list(rates(4, schedule="linear")) == [1, 0.75, 0.5, 0.25]
    assert list(rates(6, schedule="linear", warmup_steps=2)) == [0.5, 1, 1, 0.75, 0.5, 0.25]
    assert list(rates(4, schedule="cosine")) == pytest.approx(
        [(1 + math.cos(math.pi * done)) / 2 for done in (0, 0.25, 0.5, 0.75)]
    )


def test_each_report_says_the_rate_that_its_step_used(weight: nn.Parameter) -> None:
    taken = run(weight, lambda *_: Loss(weight.sum()), spec_with(warmup_steps=4), steps=4)
    assert [report.learning_rate for report in taken] == pytest.approx(
        [0.25e-4, 0.5e-4, 0.75e-4, 1e-4]
    )
