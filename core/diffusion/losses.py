"""Distances between what the UNet says and what it should say."""

from torch import Tensor
from torch.nn import functional as F


def mse_per_sample(pred_BCHW: Tensor, target_BCHW: Tensor) -> Tensor:
    """Mean squared error of each sample, shape (B,), float32 whatever came in; differentiable."""
    return F.mse_loss(pred_BCHW.float(), target_BCHW.float(), reduction="none").mean(dim=(1, 2, 3))
