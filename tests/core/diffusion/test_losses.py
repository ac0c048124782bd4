"""Losses against float64."""

import torch

from core.diffusion.losses import mse_per_sample


def test_mean_squared_error_of_each_sample() -> None:
    pred, target = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0)).unbind()
    expected = ((pred.double() - target.double()) ** 2).flatten(1).mean(1)
    torch.testing.assert_close(mse_per_sample(pred, target).double(), expected)


def test_gradient() -> None:
    pred = torch.randn(2, 4, 3, 3, requires_grad=True)
    target = torch.randn(2, 4, 3, 3)
    torch.autograd.backward(mse_per_sample(pred, target).mean())
    assert pred.grad is not None
    torch.testing.assert_close(pred.grad, 2 * (pred - target).detach() / pred.numel())


def test_half_precision_is_summed_in_float32() -> None:
    pred, target = torch.full((1, 4, 64, 64), 0.1).bfloat16(), torch.zeros(1, 4, 64, 64)
    loss = mse_per_sample(pred, target.bfloat16())
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, pred.float()[0, 0, 0, :1] ** 2)
