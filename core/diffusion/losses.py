"""Distances between what the UNet says and what it should say, and how much each counts."""

from torch import Tensor
from torch.nn import functional as F

from core.diffusion.noise import ForwardProcess


def mse_per_sample(pred_BCHW: Tensor, target_BCHW: Tensor) -> Tensor:
    """Mean squared error of each sample, shape (B,), float32 whatever came in; differentiable."""
    return F.mse_loss(pred_BCHW.float(), target_BCHW.float(), reduction="none").mean(dim=(1, 2, 3))


def min_snr_weights(process: ForwardProcess, gamma: float) -> Tensor:
    """What each timestep's squared error counts, shape (T,).

    In terms of the error of x_0 no timestep counts more than ``gamma``, and none more than its
    signal-to-noise ratio. Hang et al., arXiv:2303.09556, section 3.4; for velocity its appendix.
    """
    snr_T = process.snr_T
    if process.target_is_velocity:
        return snr_T.clamp(max=gamma) / (snr_T + 1)
    return (gamma / snr_T).clamp(max=1)
