"""On a card: half-precision bases, fp32 adapters, and runs that repeat bit by bit when asked."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from core.diffusion import components
from core.diffusion.components import Components
from core.inference import engine
from core.specs import FineTuneSpec, GenerateSpec
from core.training import fine_tune
from core.training.data import Source
from tests.support import pictures

pytestmark = pytest.mark.gpu


@pytest.fixture
def on_card(nano_folders: Mapping[str, Path]) -> Components:
    return components.load(
        nano_folders["nano-ssd-1b"], device=torch.device("cuda:0"), dtype=torch.bfloat16
    )


def train(base: Components, folder: Path, out: Path) -> dict[str, torch.Tensor]:
    spec = FineTuneSpec(
        base="nano-ssd-1b",
        dataset="here",
        instance_prompt="a photo of sks dog",
        steps=10,
        learning_rate=1e-4,
        seed=1,
        deterministic=True,
    )
    *_, last = fine_tune.train(spec, base, [Source(p) for p in pictures.write(folder)], out)
    return load_file(last.outputs["lora"])


def test_a_base_in_bf16_trains_every_entry_of_the_adapter(
    on_card: Components, tmp_path: Path
) -> None:
    lora = train(on_card, tmp_path / "pictures", tmp_path / "out")
    assert all(tensor.dtype == torch.float32 for tensor in lora.values())
    moved = torch.cat([each.flatten() != 0 for name, each in lora.items() if "lora_B" in name])
    assert moved.float().mean() > 0.99


def test_deterministic_runs_are_bit_equal(on_card: Components, tmp_path: Path) -> None:
    first = train(on_card, tmp_path / "pictures", tmp_path / "first")
    second = train(on_card, tmp_path / "pictures", tmp_path / "second")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_same_request_gives_the_same_bytes(on_card: Components, tmp_path: Path) -> None:
    spec = GenerateSpec(base="nano-ssd-1b", prompt="a red circle", steps=4, seed=2)
    drawn = []
    for folder in ("first", "second"):
        *_, last = engine.generate(spec, on_card, [], tmp_path / folder)
        assert last.picture
        drawn.append(last.picture.path.read_bytes())
    assert drawn[0] == drawn[1]
