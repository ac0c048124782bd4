"""What a runner's recipes say first."""

from pathlib import Path

import pytest

from core import bases
from core.config import Settings
from worker import listing
from worker.frames import BaseFolder, Report, Run
from worker.recipes import Bench

DRAWING = {"base": "nano-ssd-1b", "prompt": ["a", "b"], "images": 3, "steps": 5, "seed": 1}
TRAINING = {"base": "nano-ssd-1b", "dataset": "dst_x", "instance_prompt": "a", "epochs": 4}


@pytest.fixture
def bench(settings: Settings) -> Bench:
    return Bench(settings, lambda _: None)


def run_of(kind: str, spec: dict[str, object], folder: Path) -> Run:
    base = BaseFolder(id="nano-ssd-1b", folder=str(bases.EMBEDDED / "nano-ssd-1b"), embedded=True)
    parts = {"cache": str(folder), "out": str(folder), "base": base}
    return Run(job="job_1", attempt=1, kind=kind, spec=spec, **parts)


def test_while_a_base_loads_a_drawing_tells_all_of_its_steps(bench: Bench, tmp_path: Path) -> None:
    words = bench.draw([run_of("generate", DRAWING, tmp_path)], lambda _: True)
    _, word = next(words)
    assert word == Report(step=0, steps=2 * 3 * 5, message="loading the base model")


def test_while_a_base_loads_a_training_tells_all_of_its_steps(bench: Bench, tmp_path: Path) -> None:
    run = run_of("fine_tune", TRAINING, tmp_path)
    path = tmp_path / "pictures"
    listing.write(path, [(Path("a.png"), None)] * 5)
    word = next(bench.train(run.model_copy(update={"pictures": str(path)})))
    assert word == Report(step=0, steps=20, message="loading the base model")
