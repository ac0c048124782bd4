"""Which dtype a base is held in, and determinism on request."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from core.diffusion import adapter, components
from core.diffusion.lora import Lora
from core.specs import FineTuneSpec, Precision
from core.training import draws, fine_tune, precision
from core.training.data import Source
from tests.support import pictures
from tests.support.nano import NUMPY_COPY

SPEC = FineTuneSpec(
    base="nano-ssd-1b", dataset="d", instance_prompt="a photo of sks dog", seed=5, steps=10
)


@pytest.mark.parametrize(
    ("asked", "device", "dtype"),
    [
        ("auto", "cpu", torch.float32),
        ("auto", "cuda", torch.bfloat16),
        ("fp32", "cuda", torch.float32),
        ("bf16", "cpu", torch.bfloat16),
    ],
)
def test_base_dtype(asked: Precision, device: str, dtype: torch.dtype) -> None:
    assert precision.base_dtype(asked, torch.device(device)) == dtype


@pytest.mark.parametrize("wanted", [True, False])
def test_determinism_lasts_as_long_as_the_block(wanted: bool) -> None:
    with precision.deterministic_algorithms(wanted):
        assert torch.are_deterministic_algorithms_enabled() is wanted
    assert not torch.are_deterministic_algorithms_enabled()


@NUMPY_COPY
def test_half_precision_moves_as_many_entries_as_full(
    nano_folders: Mapping[str, Path], tmp_path: Path
) -> None:
    """Where LoRA weights are kept in bfloat16, a rate of 1e-4 is below the last bit of most."""
    sources = [Source(path) for path in pictures.write(tmp_path / "pictures", 3)]
    moved = {}
    for dtype in (torch.float32, torch.bfloat16):
        base = components.load(nano_folders["nano-ssd-1b"], device=torch.device("cpu"), dtype=dtype)
        before = Lora(base.unet, SPEC.lora, seed=draws.derived_seed(5, "lora", 0)).weights
        *_, last = fine_tune.train(SPEC, base, sources, tmp_path / str(dtype))
        after = adapter.read(last.outputs["lora"]).unet
        changed = [
            matrix != before[f"{name}.{letter}"]
            for name, pair in after.items()
            for letter, matrix in (("a", pair.a_RI), ("b", pair.b_OR))
        ]
        moved[dtype] = torch.cat([each.flatten() for each in changed]).float().mean().item()
    assert moved[torch.float32] > 0.95
    assert moved[torch.bfloat16] == pytest.approx(moved[torch.float32], abs=0.01)
