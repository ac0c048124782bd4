"""The loss of a distillation's step against a plain reference in float64."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from core import bases
from core.diffusion import noise
from core.diffusion.components import Components
from core.diffusion.features import places
from core.diffusion.picture import open_picture
from core.specs import DistillSpec
from core.training import beginnings, captions, data, draws, fit
from core.training.batches import Batch, Batches
from core.training.captions import NOTHING
from core.training.distillation import Distillation
from core.training.lesson import Lesson
from core.training.pupil import Pupil
from core.training.shelf import Row, Shelf
from tests.support import pictures
from tests.support.nano import NUMPY_COPY, load

pytestmark = NUMPY_COPY

CPU = torch.device("cpu")
CAPTIONS = ("a red ball on a blue background", "a panda")
PARTS = ("task", "output", "feature")
Make = Callable[..., Distillation]


@pytest.fixture(scope="module")
def teacher() -> Components:
    return load(bases.NANO_SDXL)


@pytest.fixture
def distillation(teacher: Components, tmp_path: Path) -> Make:
    paths = pictures.write(tmp_path, count=2)

    def make(prediction: str = "epsilon", **fields: object) -> Distillation:
        spec = DistillSpec.model_validate(
            {"teacher": "nano-sdxl", "dataset": "d", "seed": 5, "batch_size": 2, **fields}
        )

        def words(number: int) -> Row:
            if number == NOTHING:
                return captions.nothing(teacher)
            return captions.encode(teacher, CAPTIONS[number])

        def views(number: int) -> Row:
            return data.encode_views(open_picture(paths[number]), number, spec, teacher, 64)

        config = {**teacher.scheduler.config, "prediction_type": prediction}
        batches = Batches(spec, noise.forward_process(config, CPU), CPU)
        pupil = Pupil.enter(beginnings.fresh(spec.student, None, teacher), teacher)
        lesson = Lesson(Shelf(views, CPU), Shelf(words, CPU), range(2), [0, 1])
        return Distillation(spec, batches, teacher.unet, pupil, lesson)

    return make


def gradients(made: Distillation) -> dict[str, Tensor]:
    made.pupil.unet.zero_grad()
    torch.autograd.backward(made.micro_loss(0, 0).total)
    return {
        name: weight.grad.clone()
        for name, weight in made.pupil.weights.items()
        if weight.grad is not None
    }


def watched(unet: UNet2DConditionModel, batch: Batch) -> tuple[Tensor, list[Tensor]]:
    """The answer in float64 and what the compared modules gave, caught by wrapping their calls."""
    seen: dict[str, Tensor] = {}
    for place in places(unet):
        module = unet.get_submodule(place)

        def call(*inputs: Any, place: str = place, own: Any = module.forward, **told: Any) -> Any:
            given = own(*inputs, **told)
            seen[place] = given[0] if isinstance(given, tuple) else given
            return given

        module.forward = call
    answer = unet(
        batch.noisy_BCHW.double(),
        batch.timesteps_B,
        encoder_hidden_states=batch.text_BLD.double(),
        added_cond_kwargs={
            "text_embeds": batch.pooled_BP.double(),
            "time_ids": batch.time_ids_B6.double(),
        },
    ).sample
    return answer, [seen[place] for place in places(unet)]


def reference(made: Distillation) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss by the formula, each square taken by hand, and the student's gradients."""
    spec, batch = made.spec, made.batches.draw(made.lesson, [0, 1])
    student = copy.deepcopy(made.pupil.unet).double()
    with torch.no_grad():
        taught, deep = watched(copy.deepcopy(made.teacher).double(), batch)
    answer, shallow = watched(student, batch)
    alphas = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000).double() ** 2).cumprod(0)
    signal = alphas[batch.timesteps_B].view(2, 1, 1, 1)
    snr, weight = signal / (1 - signal), torch.ones(2, 1, 1, 1).double()
    velocity = made.batches.process.target_is_velocity
    if spec.snr_gamma:
        weight = snr.clamp(max=spec.snr_gamma) / (snr + 1 if velocity else snr)
    added = draws.normal(5, "noise", [0, 1], made.lesson.latent_shape).double()
    clean = (batch.noisy_BCHW.double() - (1 - signal).sqrt() * added) / signal.sqrt()
    target = signal.sqrt() * added - (1 - signal).sqrt() * clean if velocity else added
    loss = spec.loss.task * (weight * (answer - target) ** 2).mean()
    loss = loss + spec.loss.output * (weight * (answer - taught) ** 2).mean()
    for mine, theirs in zip(shallow, deep, strict=True):
        loss = loss + spec.loss.feature * ((mine - theirs) ** 2).mean()
    torch.autograd.backward(loss)
    found = {
        name: weight.grad for name, weight in student.named_parameters() if weight.grad is not None
    }
    return loss.detach(), found


VARIANTS: dict[str, dict[str, Any]] = {
    "as Segmind's": {},
    "task alone": {"loss": {"task": 1, "output": 0, "feature": 0}},
    "output alone": {"loss": {"task": 0, "output": 2, "feature": 0}},
    "features alone": {"loss": {"task": 0, "output": 0, "feature": 0.3}},
    "velocity": {"prediction": "v_prediction"},
    "min-SNR": {"snr_gamma": 5, "loss": {"feature": 0.01}},
    "min-SNR of velocity": {"snr_gamma": 2, "prediction": "v_prediction"},
    "other layers": {"student": {"layers": [0, 1, 2, 6]}},
    "vega": {"student": {"layout": "vega"}},
}


@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS.keys())
def test_gradient_of_a_step_against_float64(distillation: Make, fields: dict[str, Any]) -> None:
    made = distillation(**fields)
    true_loss, theirs = reference(made)
    torch.testing.assert_close(made.micro_loss(0, 0).total.double(), true_loss, rtol=1e-5, atol=0)
    ours = gradients(made)
    assert all(not theirs[name].any() for name in theirs.keys() - ours.keys())
    scale = max(gradient.abs().max().item() for gradient in theirs.values())
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient.double(), theirs[name], rtol=1e-3, atol=1e-5 * scale)


def test_the_gradient_of_the_sum_is_the_sum_of_the_gradients(distillation: Make) -> None:
    weights = {"task": 1.0, "output": 0.5, "feature": 0.25}
    whole = gradients(distillation(loss=weights))
    alone = [
        gradients(distillation(loss={part: weights[part] if part == name else 0 for part in PARTS}))
        for name in PARTS
    ]
    scale = max(gradient.abs().max().item() for gradient in whole.values())
    for name, gradient in whole.items():
        parts = [each[name] for each in alone if name in each]
        torch.testing.assert_close(
            gradient, torch.stack(parts).sum(0), rtol=1e-3, atol=1e-5 * scale
        )


def test_each_of_26_features_counts_once_and_is_told(distillation: Make) -> None:
    made = distillation(loss={"task": 1, "output": 0.5, "feature": 0.5})
    loss = made.micro_loss(0, 0)
    told = {name: term.item() for name, term in loss.terms.items()}
    assert tuple(told) == made.terms
    features = [value for name, value in told.items() if name.startswith("feature.")]
    assert len(features) == 26
    assert told["feature"] == pytest.approx(sum(features), rel=1e-5)
    total = told["task"] + 0.5 * told["output"] + 0.5 * told["feature"]
    assert loss.total.item() == pytest.approx(total, rel=1e-5)
    assert not any(term.requires_grad for term in loss.terms.values())


def test_a_part_that_counts_nothing_is_not_computed(
    distillation: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = distillation(loss={"task": 1, "output": 0, "feature": 0})
    monkeypatch.setattr(UNet2DConditionModel, "forward", guarded(made.teacher))
    assert tuple(made.micro_loss(0, 0).terms) == made.terms == ("task",)


def guarded(teacher: nn.Module) -> Callable[..., Any]:
    forward = UNet2DConditionModel.forward

    def ask(self: UNet2DConditionModel, *inputs: Any, **told: Any) -> Any:
        assert self is not teacher, "nobody asked the teacher"
        return forward(self, *inputs, **told)

    return ask


def test_checkpointing_changes_no_gradient(distillation: Make) -> None:
    plain, made = gradients(distillation()), distillation()
    with fit.checkpointing(made.pupil.unet, True):
        assert made.pupil.unet.is_gradient_checkpointing
        again = gradients(made)
    torch.testing.assert_close(plain, again)


def test_the_teacher_learns_nothing(distillation: Make, teacher: Components) -> None:
    before = {name: weight.clone() for name, weight in teacher.unet.state_dict().items()}
    made = distillation()
    gradients(made)
    assert not any(weight.requires_grad for weight in teacher.unet.parameters())
    assert all(
        torch.equal(weight, before[name]) for name, weight in teacher.unet.state_dict().items()
    )


def test_in_half_precision_gradients_are_whole(distillation: Make, teacher: Components) -> None:
    """Weights and gradients stay float32 while the pass is computed in halves."""
    made = distillation()
    whole = gradients(made)
    halved = gradients(
        Distillation(
            made.spec,
            made.batches,
            made.teacher,
            Pupil(made.pupil.unet, torch.bfloat16),
            made.lesson,
        )
    )
    assert {gradient.dtype for gradient in halved.values()} == {torch.float32}
    large = max(whole, key=lambda name: whole[name].norm().item())
    off = (halved[large] - whole[large]).norm() / whole[large].norm()
    assert 0 < off < 0.1
