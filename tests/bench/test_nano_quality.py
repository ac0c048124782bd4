"""What the nano pair can draw, and what DreamBooth makes of nano-sdxl, in a classifier's eyes.

Needs the captioned icons that it was trained on: EMOJI=<folder> make bench. They are icons that it
has seen: this measures how well it remembers and composes, not whether it generalises.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image

from api.demo import story, subject
from core import bases
from core.diffusion import components
from core.diffusion.components import Components
from core.files.digest import sha256_of
from core.inference.engine import Engine
from core.inference.lora_shelf import LoraShelf
from core.inference.request import Lora, Progress, Request
from core.nano.recipe import classifier, folder, judge
from core.nano.recipe.captions import article
from core.nano.recipe.classifier import Classifier
from core.nano.recipe.scenes import COLOURS, Cutout
from core.specs import FineTuneSpec, GenerateSpec
from core.training import fine_tune
from core.training.data import Source
from tests.support.nano import NUMPY_COPY

EMOJI = os.environ.get("EMOJI")
pytestmark = [
    pytest.mark.bench,
    NUMPY_COPY,
    pytest.mark.skipif(EMOJI is None, reason="EMOJI names the folder of icons"),
]

SUBJECTS = Path(folder.__file__).with_name("fluent_emoji.txt")
CLASSIFIER_STEPS = 1200
LEAST_SUBJECTS, LEAST_COLOURS = 0.9, 0.99
"""What was reached: 0.908 to 0.917, and 0.996 to 1."""
LEAST_OF_THE_TEACHERS = 0.9
GROUNDS = list(COLOURS)[:10]
ROBOT = "sks robot"
CLASS = "a photo of a robot"
CLASS_PICTURES = 60
"""Of one prompt, each from its own seed: with 20 the mean is uncertain by 0.09."""
WITH_PRIOR: dict[str, object] = {
    "instance_prompt": "a photo of ohwx robot",
    "class_prompt": CLASS,
    "prior": {"images": 0, "weight": 4},
    "lora": {"targets": "transformer"},
    "steps": 400,
}


@pytest.fixture(scope="module")
def icons() -> list[Cutout]:
    return folder.read(Path(str(EMOJI)), folder.subjects(SUBJECTS))


@pytest.fixture(scope="module")
def judging(icons: list[Cutout], tell: Callable[[str], None]) -> Classifier:
    """Knows the icons and the demo's robot, which nano-sdxl has never seen."""
    known = [*icons, Cutout(ROBOT, subject.cutout(folder.SIDE))]
    trained = classifier.train(known, CLASSIFIER_STEPS)
    fresh = classifier.draw(known, classifier.FRESH_SEED, range(1000))
    seen = trained.look([scene.picture for scene in fresh])
    subjects = share(seen.subjects, [str(scene.content.subject) for scene in fresh])
    grounds = share(seen.colours, [scene.content.colour for scene in fresh])
    tell(f"the classifier on fresh scenes: subject {subjects:.3f}, ground {grounds:.3f}")
    return trained


@pytest.fixture(scope="module")
def base() -> Components:
    return components.load(bases.NANO_SDXL, device=torch.device("cpu"), dtype=torch.float32)


def share(said: Sequence[str], asked: Sequence[str]) -> float:
    return sum(one == other for one, other in zip(said, asked, strict=True)) / len(asked)


def test_it_draws_what_is_asked(
    icons: list[Cutout], judging: Classifier, base: Components, tell: Callable[[str], None]
) -> None:
    names = [cutout.name for cutout in icons]
    score = judge.score(base.pipeline(), judging, names, each=2)
    tell(f"{len(names)} subjects, twice: {score.subjects:.3f} named, ground {score.colours:.3f}")
    tell(f"mistaken: {', '.join(f'{name} for {seen}' for name, seen in score.mistaken)}")
    assert score.subjects >= LEAST_SUBJECTS
    assert score.colours >= LEAST_COLOURS


def test_the_student_draws_nearly_as_well(
    icons: list[Cutout], judging: Classifier, base: Components, tell: Callable[[str], None]
) -> None:
    student = components.load(bases.NANO_SSD_1B, device=torch.device("cpu"), dtype=torch.float32)
    names = [cutout.name for cutout in icons]
    teacher, own = (
        judge.score(each.pipeline(), judging, names, each=2) for each in (base, student)
    )
    tell(
        f"nano-ssd-1b: {own.subjects:.3f} named, {own.subjects / teacher.subjects:.0%} of its "
        f"teacher's {teacher.subjects:.3f}; ground {own.colours:.3f}"
    )
    assert own.subjects >= LEAST_OF_THE_TEACHERS * teacher.subjects


def test_dreambooth_names_a_subject_it_never_saw(
    judging: Classifier, base: Components, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    """With the demo's numbers it is named and its class is lost; with a prior both are there.

    The prior is the base's own prediction, without class pictures, and the word one that no caption
    has used: nano-sdxl's captions taught it that "sks" means nothing, which it can only unlearn
    together with its class.
    """
    before = class_score(judging, base, [], tmp_path)
    plain = [(trained(base, tmp_path / "plain"), 1.0)]
    named, lost = named_on_grounds(judging, base, plain, subject.PROMPT, tmp_path)
    after = class_score(judging, base, plain, tmp_path)
    tell(f"the unseen robot, demo's numbers: named on {named} of 10 grounds ({lost})")
    assert named >= 8
    kept = [(trained(base, tmp_path / "kept", **WITH_PRIOR), 1.0)]
    named, lost = named_on_grounds(
        judging, base, kept, str(WITH_PRIOR["instance_prompt"]), tmp_path
    )
    preserved = class_score(judging, base, kept, tmp_path)
    tell(f"with a prior: named on {named} of 10 grounds ({lost})")
    tell(
        f"its class: {before:.3f} before, {preserved:.3f} after with a prior "
        f"({preserved / before:.0%}), {after:.3f} without"
    )
    assert named >= 8
    assert preserved >= 0.9 * before
    assert after < preserved - 0.05


def named_on_grounds(
    judging: Classifier,
    base: Components,
    loras: list[tuple[Path, float]],
    prompt: str,
    out: Path,
) -> tuple[int, str]:
    """How many of ten grounds show the subject, and what the others show."""
    prompts = [f"{prompt} on {article(each)} {each} background" for each in GROUNDS]
    seen = judging.look(drawn(base, loras, prompts, out)).subjects
    others = [name for name in seen if name != ROBOT]
    return len(seen) - len(others), ", ".join(others) or "no other"


def trained(base: Components, out: Path, **fields: object) -> Path:
    """The LoRA of a run with the demo's pictures, and its numbers but for ``fields``."""
    spec = FineTuneSpec.model_validate(
        {
            "base": story.BASE,
            "dataset": "robot",
            "instance_prompt": subject.PROMPT,
            "steps": story.DEFAULT_STEPS,
            "learning_rate": story.LEARNING_RATE,
            "schedule": story.SCHEDULE,
            "seed": story.SEED,
            **fields,
        }
    )
    out.mkdir()
    sources = [Source(path) for path in subject.save_pictures(out / "pictures")]
    *_, last = fine_tune.train(spec, base, sources, out)
    return last.outputs["lora"]


def drawn(
    base: Components, loras: list[tuple[Path, float]], prompts: list[str], out: Path
) -> list[Image.Image]:
    """A picture a prompt, each from a seed of its own."""
    requests = []
    for number, prompt in enumerate(prompts):
        spec = GenerateSpec(
            base=story.BASE,
            prompt=prompt,
            seed=100 + number,
            steps=judge.STEPS,
            width=base.native_size,
            height=base.native_size,
        )
        named = [Lora(path, sha256_of(path), weight) for path, weight in loras]
        requests.append(Request(spec, named, out / str(number)))
    told = Engine(base, LoraShelf(), lambda *_: 16).draw(requests)
    paths = {
        each.request: each.picture.path
        for each in told
        if isinstance(each, Progress) and each.picture
    }
    return [Image.open(paths[number]).convert("RGB") for number in range(len(prompts))]


def class_score(
    judging: Classifier, base: Components, loras: list[tuple[Path, float]], out: Path
) -> float:
    """How sure the classifier is, on the mean, that the class prompt shows the class."""
    pictures = drawn(base, loras, [CLASS] * CLASS_PICTURES, out)
    return judging.look(pictures).probability_NS[:, judging.names.index("robot")].mean().item()
