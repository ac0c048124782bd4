"""Both settings of distillation over HTTP, with the trained nano-sdxl and captioned scenes.

Needs the icons that nano-sdxl was trained on: EMOJI=<folder> make bench. They are icons that the
teacher has seen; how a student does with what its teacher never saw is not measured here. An hour
and a half on two cores.
"""

import json
import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from api.client import Client
from core import bases
from core.diffusion import components
from core.nano.recipe import classifier, folder, judge, pictures, scenes, shapes
from core.nano.recipe.classifier import Classifier
from core.nano.recipe.scenes import Cutout, Scene
from tests.support.nano import NUMPY_COPY
from tests.support.server import running

EMOJI = os.environ.get("EMOJI")
pytestmark = [
    pytest.mark.bench,
    NUMPY_COPY,
    pytest.mark.skipif(EMOJI is None, reason="EMOJI names the folder of icons"),
]

SEEDS = (1, 2, 3)
SCENES = 2000
STEPS = 400
FIRST_STEPS, SECOND_STEPS = 400, 800
CAPTION_DROPOUT = 0.1
"""Of Setting 2, whose students are judged by what they draw with guidance: that asks them for the
empty prompt too. Without it, 0.650 and 0.717 of the halves' subjects were named after the first."""
CLASSIFIER_STEPS = 1200
SUBJECTS = Path(folder.__file__).with_name("fluent_emoji.txt")
TASK_ALONE = {"task": 1, "output": 0, "feature": 0}
TASK_AND_FEATURES = {"task": 1, "output": 0, "feature": 0.5}
Distil = Callable[..., "Taught"]


@dataclass(frozen=True)
class Taught:
    """What came of a job: its UNet's artifact, its folder and its card."""

    artifact: str
    unet: Path
    card: dict[str, Any]

    @property
    def errors(self) -> tuple[float, float]:
        """To the teacher, on held-out captions: before and after."""
        mean = self.card["error_to_teacher"]["mean"]
        return mean["before"], mean["after"]


@pytest.fixture(scope="module")
def icons() -> list[Cutout]:
    return folder.read(Path(str(EMOJI)), folder.subjects(SUBJECTS))


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    home = tmp_path_factory.mktemp("distillation") / "home"
    with running(home, STILLROOM_LEASE_SECONDS="120") as server, server.client() as client:
        yield client


@pytest.fixture(scope="module")
def distil(client: Client, tmp_path_factory: pytest.TempPathFactory) -> Distil:
    """Runs a job to its end."""

    def run(dataset: str, **fields: Any) -> Taught:
        spec = {
            "teacher": "nano-sdxl",
            "dataset": dataset,
            "steps": STEPS,
            "batch_size": 8,
            "optimizer": "adamw",
            "learning_rate": 1e-3,
            "schedule": "cosine",
            "warmup_steps": 20,
            "sample": {"prompts": ["a photo of a panda"], "every": 100_000, "steps": 10},
        }
        done = client.wait(client.distill(spec | fields)["id"])
        assert done["state"] == "succeeded", done["error"]
        result, out = done["result"] or {}, tmp_path_factory.mktemp("unet")
        report = client.download(result["report"], out / "report.json")
        unet = client.download(result["unet"], out / "unet")
        return Taught(result["unet"], unet, json.loads(report.read_text())["card"])

    return run


def upload(client: Client, drawn: Iterator[Scene], out: Path) -> str:
    out.mkdir()
    pictures.write(out, drawn, seed=1)
    dataset = client.create_dataset(out.name, kind="captioned")
    client.upload(dataset["id"], [out])
    return str(dataset["id"])


def test_a_student_comes_near_its_teacher(
    icons: list[Cutout],
    client: Client,
    distil: Distil,
    tmp_path: Path,
    tell: Callable[[str], None],
) -> None:
    """Setting 1; with other layers; and features beside the task against the task alone."""
    drawn = pictures.scenes_of(shapes.cutouts(), icons, seed=11, count=SCENES)
    dataset = upload(client, drawn, tmp_path / "scenes")
    ways: dict[str, dict[str, Any]] = {
        "layers 0, 1, 2, 3": {},
        "layers 0, 1, 2, 6": {"student": {"layers": [0, 1, 2, 6]}},
        "task alone": {"loss": TASK_ALONE},
        "task and features": {"loss": TASK_AND_FEATURES},
    }
    ratios: dict[str, list[float]] = {}
    for way, fields in ways.items():
        errors = [distil(dataset, seed=seed, **fields).errors for seed in SEEDS]
        ratios[way] = [after / before for before, after in errors]
        told = "; ".join(f"{before:.4f} to {after:.4f}" for before, after in errors)
        tell(f"setting 1, {way}: {told} ({_spread(ratios[way])} of what it was)")
    assert max(ratios["layers 0, 1, 2, 3"]) <= 0.2
    assert max(ratios["task and features"]) < min(ratios["task alone"])


@dataclass(frozen=True)
class Halves:
    """Both halves of the subjects, the second as a dataset, and a student that was taught the
    first; shares named by the classifier are of the first and of the second half."""

    subjects: list[list[Cutout]]
    judging: Classifier
    second: str
    student: Taught
    teacher_named: list[float]
    student_named: list[float]


@pytest.fixture(scope="module")
def halves(
    icons: list[Cutout],
    client: Client,
    distil: Distil,
    tmp_path_factory: pytest.TempPathFactory,
    tell: Callable[[str], None],
) -> Halves:
    subjects, out = [icons[0::2], icons[1::2]], tmp_path_factory.mktemp("halves")
    first, second = (
        upload(client, _scenes_of(half, seed=12), out / f"half {number}")
        for number, half in enumerate(subjects)
    )
    student = distil(first, seed=1, steps=FIRST_STEPS, caption_dropout=CAPTION_DROPOUT)
    judging = classifier.train(icons, CLASSIFIER_STEPS)
    teacher_named, student_named = (
        _named(judging, unet, subjects) for unet in (None, student.unet)
    )
    tell(f"setting 2, the teacher: {_both(teacher_named)} of each half's subjects are named")
    tell(f"setting 2, after the first half: {_both(student_named)}")
    return Halves(subjects, judging, second, student, teacher_named, student_named)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_student_learns_more_without_losing_what_it_knows(
    seed: int, halves: Halves, distil: Distil, tell: Callable[[str], None]
) -> None:
    """Setting 2: taught one half of the subjects, then the other."""
    pretrained = {"init": "pretrained", "weights": halves.student.artifact}
    taught = distil(
        halves.second,
        seed=seed,
        student=pretrained,
        steps=SECOND_STEPS,
        caption_dropout=CAPTION_DROPOUT,
    )
    named = _named(halves.judging, taught.unet, halves.subjects)
    before, after = taught.errors
    tell(
        f"setting 2, seed {seed}, after the second half: {_both(named)}; error to the teacher "
        f"there {before:.4f} to {after:.4f}"
    )
    assert named[1] >= 0.9 * halves.teacher_named[1]
    assert named[0] >= halves.student_named[0] - 0.05


def _scenes_of(half: Sequence[Cutout], seed: int) -> Iterator[Scene]:
    for ordinal in range(SCENES):
        random = scenes.random_of(seed, ordinal)
        yield scenes.compose(half[int(random.integers(len(half)))], random)


def _named(
    judging: Classifier, unet: Path | None, halves: Sequence[Sequence[Cutout]]
) -> list[float]:
    """The share of each half's subjects that is named, each drawn twice."""
    loaded = components.load(
        bases.NANO_SDXL, device=torch.device("cpu"), dtype=torch.float32, unet_folder=unet
    )
    pipeline = loaded.pipeline()
    pipeline.set_progress_bar_config(disable=True)
    return [
        judge.score(pipeline, judging, [cutout.name for cutout in half], each=2).subjects
        for half in halves
    ]


def _both(shares: Sequence[float]) -> str:
    return " and ".join(f"{share:.3f}" for share in shares)


def _spread(ratios: Sequence[float]) -> str:
    return f"{statistics.mean(ratios):.3f}, from {min(ratios):.3f} to {max(ratios):.3f},"
