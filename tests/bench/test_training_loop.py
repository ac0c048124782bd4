"""Our training loop beside a plain one that does in each step what the usual scripts do."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
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
    spec = spec_with(method="captioned", resolution=128, batch_size=8)
    plain, ours = (run(way, spec, base, tmp_path) for way in ("plain", "ours"))
    compare("captions, a toy in SSD-1B's proportions at 256 px", plain, ours, tell)
    assert ours.seconds_per_step <= 0.60 * plain.seconds_per_step
    assert ours.bytes <= 0.7 * plain.bytes


@pytest.mark.skipif(
    "DIFFUSERS_EXAMPLES" not in os.environ, reason="DIFFUSERS_EXAMPLES names diffusers' examples"
)
def test_beside_the_script_that_people_use(tmp_path: Path, tell: Callable[[str], None]) -> None:
    """diffusers' own DreamBooth script for SDXL, run by OTHER_PYTHON, which has what it needs."""
    base = tmp_path / "base"
    toys.save(base, side=256, vae_widths=(16, 40, 64, 64), text_width=80, text_layers=3)
    spec = spec_with(instance_prompt="a photo of sks dog", resolution=256)
    ours = run("ours", spec, base, tmp_path)
    theirs = script(spec, base, tmp_path)
    tell(
        f"beside diffusers' script: {ours.seconds_per_step:.3f} s a step and {theirs.seconds:.3f} "
        f"({ours.seconds_per_step / theirs.seconds:.2f}); {ours.bytes / 1e6:.0f} MB above the "
        f"imports and {theirs.bytes / 1e6:.0f} ({ours.bytes / theirs.bytes:.2f})"
    )
    assert ours.seconds_per_step <= 0.70 * theirs.seconds
    assert ours.bytes <= 0.7 * theirs.bytes


@dataclass(frozen=True)
class Ran:
    seconds: float
    bytes: int


def script(spec: FineTuneSpec, base: Path, tmp_path: Path) -> Ran:
    """Seconds a step, from a short and a longer run; bytes above those that its imports take."""
    floor = script_run(["--help"])
    flags = [
        f"--pretrained_model_name_or_path={base}",
        f"--instance_data_dir={tmp_path / 'pictures'}",
        f"--instance_prompt={spec.instance_prompt}",
        f"--output_dir={tmp_path / 'theirs'}",
        f"--resolution={spec.resolution}",
        f"--train_batch_size={spec.batch_size}",
        f"--rank={spec.lora.rank}",
        f"--learning_rate={spec.learning_rate}",
        "--lr_scheduler=constant",
        "--lr_warmup_steps=0",
        "--center_crop",
        "--mixed_precision=no",
        "--report_to=all",
        "--seed=3",
    ]
    short, long = (
        script_run([*flags, f"--max_train_steps={steps}"]) for steps in (STEPS, 3 * STEPS)
    )
    return Ran((long.seconds - short.seconds) / (2 * STEPS), long.bytes - floor.bytes)


def script_run(flags: list[str]) -> Ran:
    path = Path(os.environ["DIFFUSERS_EXAMPLES"]) / "dreambooth" / "train_dreambooth_lora_sdxl.py"
    command = [os.environ.get("OTHER_PYTHON", sys.executable), str(path), *flags]
    began = time.perf_counter()
    peak_bytes = 0
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said) as process,
    ):
        while process.poll() is None:
            # not what wait4 tells: that begins with the peak of the process that forked
            peak_bytes = peak_of(process.pid) or peak_bytes
            time.sleep(0.02)
        said.seek(0)
        assert process.returncode == 0, said.read()
    return Ran(time.perf_counter() - began, peak_bytes)


def peak_of(pid: int) -> int | None:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else None  # a process that has just ended has none


def load(base: Path) -> Components:
    return components.load(base, device=torch.device("cpu"), dtype=torch.float32)


def spec_with(**fields: Any) -> FineTuneSpec:
    return FineTuneSpec.model_validate(
        {
            "base": "nano-ssd-1b",
            "dataset": "d",
            "seed": 3,
            "steps": STEPS,
            "batch_size": 4,
            "learning_rate": 1e-3,
            **fields,
        }
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
