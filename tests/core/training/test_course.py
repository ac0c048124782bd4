"""The loss of a step against a plain reference in float64, written from the papers."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from core.diffusion import conditioning, latents, noise
from core.diffusion.components import Components
from core.diffusion.lora import Lora
from core.diffusion.picture import open_picture
from core.specs import FineTuneSpec
from core.training import captions, data, draws, fit
from core.training.batches import Batches
from core.training.captions import NOTHING
from core.training.course import Course
from core.training.lesson import Lesson
from core.training.shelf import Row, Shelf
from tests.support import pictures
from tests.support.nano import NUMPY_COPY

pytestmark = NUMPY_COPY

CPU = torch.device("cpu")
PROMPT, CLASS_PROMPT = "a photo of sks dog", "a photo of a dog"
PRIOR = {"class_prompt": CLASS_PROMPT, "prior": {"weight": 0.7, "images": 2}}
OWN_PRIOR = {"class_prompt": CLASS_PROMPT, "prior": {"weight": 0.7, "images": 0}}
SEED = 5


def class_row(number: int) -> Row:
    """A latent that needs no drawing, with sizes of its own."""
    mean_1CHW = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(number))
    ids_16 = torch.tensor([[32.0, 32, 0, 0, 64, 64]])
    return {"mean": mean_1CHW, "std": torch.zeros_like(mean_1CHW), "time_ids": ids_16}


@pytest.fixture
def course(nano_ssd_1b: Components, tmp_path: Path) -> Callable[..., Course]:
    """What a run has before its first step; but B is not zero, so that A has gradients too."""
    base = nano_ssd_1b
    paths = pictures.write(tmp_path, count=3)

    def prepare(prediction: str = "epsilon", **fields: object) -> Course:
        spec = FineTuneSpec.model_validate(
            {
                "base": "nano-ssd-1b",
                "dataset": "d",
                "instance_prompt": PROMPT,
                "seed": SEED,
                "lora": {"rank": 4, "alpha": 8},
                **fields,
            }
        )
        texts = {0: PROMPT, 1: CLASS_PROMPT}
        words = Shelf(
            lambda number: (
                captions.nothing(base)
                if number == NOTHING
                else captions.encode(base, texts[number])
            ),
            CPU,
        )
        made = Lora(base.unet, spec.lora, seed=0)
        with torch.no_grad():
            for b_OR in made.b:
                b_OR.normal_(0, 0.05, generator=torch.Generator().manual_seed(2))
        config = {**base.scheduler.config, "prediction_type": prediction}
        taught = Lesson(Shelf(class_row, CPU), words, range(2), [1, 1], name="class")
        return Course(
            spec=spec,
            batches=Batches(spec, noise.forward_process(config, CPU), CPU, spec.noise_offset),
            unet=base.unet,
            lora=made,
            instance=Lesson(
                views=Shelf(
                    lambda n: data.encode_views(open_picture(paths[n]), n, spec, base, 64), CPU
                ),
                words=words,
                pictures=range(3),
                words_of=[0, 0, 0],
                views_per_picture=spec.views_per_picture,
                dropout=spec.caption_dropout,
            ),
            prior=taught if spec.prior and spec.prior.images else None,
            class_words=1 if spec.prior else None,
        )

    return prepare


def gradients(course: Course, micros: int) -> list[Tensor]:
    with course.lora.attached(course.unet):
        for micro in range(micros):
            torch.autograd.backward(course.micro_loss(0, micro).total / micros)
    return [parameter.grad for parameter in course.lora.parameters() if parameter.grad is not None]


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "velocity": {"prediction": "v_prediction"},
    "min-SNR": {"snr_gamma": 5},
    "min-SNR of velocity": {"snr_gamma": 2, "prediction": "v_prediction"},
    "noise offset": {"noise_offset": 0.3},
    "no words": {"caption_dropout": 0.5},
    "class pictures": PRIOR,
    "class pictures and min-SNR": {**PRIOR, "snr_gamma": 0.5},
    "class pictures, min-SNR of velocity": {**PRIOR, "snr_gamma": 1, "prediction": "v_prediction"},
    "the base's own answer": OWN_PRIOR,
    "the base's own answer and min-SNR": {**OWN_PRIOR, "snr_gamma": 0.5, "noise_offset": 0.1},
    "feed-forward and projections": {"lora": {"rank": 4, "alpha": 8, "targets": "transformer"}},
}


@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS.keys())
def test_gradient_of_a_step_against_float64(
    course: Callable[..., Course], nano_ssd_1b: Components, fields: dict[str, Any]
) -> None:
    made = course(batch_size=2, **fields)
    ours = gradients(made, micros=1)
    reference_loss, theirs = reference(made, nano_ssd_1b)
    with made.lora.attached(made.unet):
        loss = made.micro_loss(0, 0).total.double()
        torch.testing.assert_close(loss, reference_loss, rtol=1e-5, atol=1e-6)
    scale = max(gradient.abs().max().item() for gradient in theirs)
    for mine, true in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.double(), true, rtol=1e-3, atol=1e-4 * scale)


def reference(course: Course, base: Components) -> tuple[Tensor, list[Tensor]]:
    """Merges W + (alpha / rank) B A in float64 and squares by hand."""
    made = course.lora
    unet = copy.deepcopy(course.unet).double()
    halves = [
        (a.detach().double().requires_grad_(), b.detach().double().requires_grad_())
        for a, b in zip(made.a, made.b, strict=True)
    ]
    merged = {
        f"{name}.weight": unet.get_submodule(name).weight + 2.0 * (b @ a)
        for name, (a, b) in zip(made.targets, halves, strict=True)
    }

    def adapted(*inputs: Any, **told: Any) -> Tensor:
        answer: Tensor = torch.func.functional_call(unet, merged, inputs, told).sample
        return answer

    def alone(*inputs: Any, **told: Any) -> Tensor:
        with torch.no_grad():
            answer: Tensor = unet(*inputs, **told).sample
        return answer

    samples = [reference_sample(course, base, ordinal, adapted, alone) for ordinal in (0, 1)]
    loss = torch.stack(samples).mean()
    # in the order of Lora's parameters: every A, then every B
    leaves = [a for a, _ in halves] + [b for _, b in halves]
    return loss.detach(), list(torch.autograd.grad(loss, leaves))


def reference_sample(
    course: Course,
    base: Components,
    ordinal: int,
    adapted: Callable[..., Tensor],
    alone: Callable[..., Tensor],
) -> Tensor:
    """The loss of one sample with its share of the prior."""
    spec = course.spec
    picture = draws.example(SEED, "order", ordinal, 3)
    clean = latents.encode(base.vae, latents.to_pixels(pictures.draw(picture))[None]).sample(
        draws.normal(SEED, "posterior", [ordinal], (4, 16, 16))
    )
    silent = draws.share(SEED, "dropout", ordinal) < spec.caption_dropout
    words = told(base, PROMPT, side=64, silent=silent)
    noised = Noised(course, clean, ordinal, "")
    loss = noised.error(adapted(noised.latents, noised.timestep, **words), noised.target)
    if spec.prior is None:
        return loss
    if spec.prior.images:
        number = draws.example(SEED, "class order", ordinal, 2)
        noised = Noised(course, class_row(number)["mean"], ordinal, "class ")
        words, target = told(base, CLASS_PROMPT, side=32), noised.target
    else:
        words = told(base, CLASS_PROMPT, side=64)
        target = alone(noised.latents, noised.timestep, **words)
    answer = adapted(noised.latents, noised.timestep, **words)
    return loss + spec.prior.weight * noised.error(answer, target)


def told(base: Components, prompt: str, side: float, *, silent: bool = False) -> dict[str, Any]:
    heard = conditioning.encode_prompt(base, prompt)
    share = 0.0 if silent else 1.0  # nano says nothing with zeros, as SDXL does
    ids_16 = torch.tensor([[side, side, 0, 0, 64, 64]]).double()
    pooled_1P = heard.pooled_1P.double() * share
    return {
        "encoder_hidden_states": heard.text_1LD.double() * share,
        "added_cond_kwargs": {"text_embeds": pooled_1P, "time_ids": ids_16},
    }


class Noised:
    """x_t of a clean latent, by the formulas of DDPM, min-SNR and noise offset."""

    def __init__(self, course: Course, clean: Tensor, ordinal: int, name: str) -> None:
        alphas = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000).double() ** 2).cumprod(0)
        self.timestep = draws.choices(SEED, f"{name}timestep", [ordinal], 1000)
        signal, gamma = alphas[self.timestep], course.spec.snr_gamma
        added = draws.normal(SEED, f"{name}noise", [ordinal], (4, 16, 16)).double()
        if course.spec.noise_offset:
            offset = draws.normal(SEED, f"{name}noise offset", [ordinal], (4, 1, 1)).double()
            added = added + course.spec.noise_offset * offset
        self.latents = signal.sqrt() * clean.double() + (1 - signal).sqrt() * added
        snr = signal / (1 - signal)
        if course.batches.process.target_is_velocity:
            self.target = signal.sqrt() * added - (1 - signal).sqrt() * clean.double()
            self.weight = 1 if gamma is None else snr.clamp(max=gamma) / (snr + 1)
        else:
            self.target = added
            self.weight = 1 if gamma is None else snr.clamp(max=gamma) / snr

    def error(self, answer: Tensor, target: Tensor) -> Tensor:
        return (self.weight * ((answer - target) ** 2).mean()).squeeze()


def test_another_split_of_the_batch_gives_the_same_gradients(
    course: Callable[..., Course],
) -> None:
    fields = {"flip": True, "caption_dropout": 0.3, "noise_offset": 0.1, **OWN_PRIOR}
    whole = gradients(course(batch_size=4, accumulation=1, **fields), micros=1)
    parts = gradients(course(batch_size=1, accumulation=4, **fields), micros=4)
    scale = max(gradient.abs().max().item() for gradient in whole)
    for first, second in zip(whole, parts, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-5 * scale)


def test_checkpointing_changes_no_gradient(
    course: Callable[..., Course], nano_ssd_1b: Components
) -> None:
    fields = {"lora": {"rank": 4, "dropout": 0.5}, **OWN_PRIOR}
    plain = gradients(course(**fields), micros=1)
    with fit.checkpointing(nano_ssd_1b.unet, True):
        assert nano_ssd_1b.unet.is_gradient_checkpointing
        again = gradients(course(**fields), micros=1)
    assert not nano_ssd_1b.unet.is_gradient_checkpointing
    torch.testing.assert_close(plain, again)


def test_captions_are_dropped_as_often_as_asked(course: Callable[..., Course]) -> None:
    lesson = course(caption_dropout=0.25).instance
    cells = lesson.cells(SEED, range(2000))
    assert 0.2 < sum(cell.words == NOTHING for cell in cells) / 2000 < 0.3


def test_every_picture_is_shown_once_an_epoch_and_every_view_at_times(
    course: Callable[..., Course],
) -> None:
    lesson = course(flip=True).instance
    cells = lesson.cells(SEED, range(30))
    for epoch in range(10):
        assert sorted(cell.picture for cell in cells[3 * epoch : 3 * epoch + 3]) == [0, 1, 2]
    assert {cell.view for cell in cells} == {0, 1}
