"""Our training loop beside a plain one that does in each step what the usual scripts do."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from core.diffusion import components
from core.diffusion.components import Components
from core.specs import FineTuneSpec
from tests.bench import toys
from tests.support import pictures

pytestmark = pytest.mark.bench

STEPS = 20


@dataclass(frozen=True)
class Taken:
    seconds_per_step: float
    bytes: int
    losses: list[float | None]


def test_cached_latents_save_what_the_vae_costs(
    tmp_path: Path, tell: Callable[[str], None]
) -> None:
    base = tmp_path / "base"
    toys.save(base, side=256, vae_widths=(16, 40, 64, 64), text_width=80, text_layers=3)
    encode = toys.costs(load(base), 256).encode
    assert encode == pytest.approx(toys.AT_1024.encode, rel=0.02)
    spec = spec_with(instance_prompt="a photo of sks dog", resolution=256)
    plain, ours = (run(way, spec, base, tmp_path) for way in ("plain", "ours"))
    compare("one prompt, a toy in SSD-1B's proportions at 1024 px", plain, ours, tell)
    assert ours.seconds_per_step <= 0.70 * plain.seconds_per_step
    assert ours.bytes <= 0.7 * plain.bytes


def test_cached_captions_save_what_the_text_encoders_cost(
    tmp_path: Path, tell: Callable[[str], None]
) -> None:
    base = tmp_path / "base"
    toys.save(base, side=128, vae_widths=(16, 48, 72, 64), text_width=288, text_layers=4)
    costs = toys.costs(load(base), 128)
    assert costs.encode == pytest.approx(toys.AT_256.encode, rel=0.05)
    assert costs.text == pytest.approx(toys.AT_256.text, rel=0.05)
    spec = spec_with(method="captioned", resolution=128)
    plain, ours = (run(way, spec, base, tmp_path) for way in ("plain", "ours"))
    compare("captions, a toy in SSD-1B's proportions at 256 px", plain, ours, tell)
    assert ours.seconds_per_step <= 0.60 * plain.seconds_per_step
    assert ours.bytes <= 0.7 * plain.bytes


def load(base: Path) -> Components:
    return components.load(base, device=torch.device("cpu"), dtype=torch.float32)


def spec_with(**fields: Any) -> FineTuneSpec:
    return FineTuneSpec.model_validate(
        {"base": "nano-ssd-1b", "dataset": "d", "seed": 3, "steps": STEPS, "learning_rate": 1e-3}
        | fields
    )


def run(way: str, spec: FineTuneSpec, base: Path, tmp_path: Path) -> Taken:
    folder = tmp_path / "pictures"
    if not folder.exists():
        folder.mkdir()
        for number in range(8):
            pictures.draw(number, 640, 512).save(folder / f"{number}.png")
    told = tmp_path / "spec.json"
    told.write_text(spec.model_dump_json())
    module = [sys.executable, "-m", "tests.bench.one_loop"]
    command = [*module, way, str(told), str(base), str(folder), str(tmp_path / way)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return Taken(**json.loads(ran.stdout.splitlines()[-1]))


def compare(what: str, plain: Taken, ours: Taken, tell: Callable[[str], None]) -> None:
    """Tells both sides' figures; their losses must be the same within rounding."""
    seconds = ours.seconds_per_step / plain.seconds_per_step
    tell(
        f"{what}: {ours.seconds_per_step:.3f} s a step beside {plain.seconds_per_step:.3f} "
        f"({seconds:.2f}); {ours.bytes / 1e6:.0f} MB above the imports beside "
        f"{plain.bytes / 1e6:.0f} ({ours.bytes / plain.bytes:.2f})"
    )
    read = [step for step, loss in enumerate(ours.losses) if loss is not None]
    assert read
    begun = 0
    for step in read:
        span = [loss for loss in plain.losses[begun : step + 1] if loss is not None]
        assert ours.losses[step] == pytest.approx(sum(span) / len(span), rel=1e-3)
        begun = step + 1
