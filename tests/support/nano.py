"""The nano pair, and LoRAs for it.

torch is imported inside, so that tests of the service side start without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from core import bases

if TYPE_CHECKING:
    from torch import Tensor

    from core.diffusion.components import Components

NUMPY_COPY = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
"""For tests that set up a scheduler of diffusers: it makes numpy arrays of tensors, and torch's
tensors do not know numpy 2's ``copy`` argument."""


@pytest.fixture(scope="session")
def nano_folders() -> Mapping[str, Path]:
    """Pipeline folders of ``nano-sdxl`` and ``nano-ssd-1b``. Read only."""
    return {"nano-sdxl": bases.NANO_SDXL, "nano-ssd-1b": bases.NANO_SSD_1B}


@pytest.fixture(scope="session")
def nano_ssd_1b(nano_folders: Mapping[str, Path]) -> Components:
    """nano-ssd-1b in float32 on the CPU. Shared: leave it as it was."""
    return load(nano_folders["nano-ssd-1b"])


def load(folder: Path) -> Components:
    import torch

    from core.diffusion import components

    return components.load(folder, device=torch.device("cpu"), dtype=torch.float32)


def lora_file(
    components: Components, path: Path, *, rank: int = 4, alpha: float = 8.0, seed: int = 0
) -> Path:
    """A LoRA as training would leave it: neither half is zero."""
    import torch

    from core.diffusion import lora
    from core.specs import LoraSpec
    from core.training import export

    trained = lora.Lora(components.unet, LoraSpec(rank=rank, alpha=alpha), seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for b_OR in trained.b:
            b_OR.normal_(0, 0.05, generator=generator)
    export.save_for_diffusers(trained, path)
    return path


def unet_output(components: Components) -> Tensor:
    """What the UNet answers to one fixed input, shape (1, 4, 16, 16)."""
    import torch

    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        output: Tensor = components.unet(
            torch.randn(1, 4, 16, 16, generator=generator),
            torch.tensor(321),
            encoder_hidden_states=torch.randn(
                1, 77, components.unet.config.cross_attention_dim, generator=generator
            ),
            added_cond_kwargs={
                "text_embeds": torch.randn(1, components.pooled_width, generator=generator),
                "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]]),
            },
        ).sample
    return output
