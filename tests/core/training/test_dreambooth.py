"""The whole recipe on nano-ssd-1b: what it learns, what it leaves, and that it can be stopped."""

import copy
import json
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from core.diffusion import components, conditioning, latents, noise, sampling
from core.diffusion.components import Components
from core.diffusion.latents import Moments
from core.diffusion.lora import Lora
from core.diffusion.lora_file import FILE_NAME
from core.errors import NonFiniteLoss, OutOfMemory
from core.specs import FineTuneSpec
from core.training import class_pictures, data, draws, dreambooth
from core.training.data import Examples
from core.training.dreambooth import Course
from core.training.lesson import Lesson
from core.training.report import StepReport
from tests.support import pictures
from tests.support.nano import NUMPY_COPY, unet_output

pytestmark = NUMPY_COPY

PROMPT = "a photo of sks dog"
CLASS_PROMPT = "a photo of a dog"
PRIOR = {"class_prompt": CLASS_PROMPT, "prior": {"weight": 0.7, "images": 2}}


def spec_with(**fields: object) -> FineTuneSpec:
    return FineTuneSpec.model_validate(
        {
            "base": "nano-ssd-1b",
            "dataset": "d",
            "instance_prompt": PROMPT,
            "seed": 5,
            "learning_rate": 3e-3,
            "lora": {"rank": 4, "alpha": 8},
            **fields,
        }
    )


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return pictures.write(tmp_path_factory.mktemp("pictures"), count=3)


def a_class(base: Components) -> Lesson:
    """Two latents that need no drawing, with sizes of their own."""
    latents_NCHW = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    ids_N6 = torch.tensor([[32.0, 32, 0, 0, 64, 64]]).repeat(2, 1)
    return Lesson(
        Examples(Moments(latents_NCHW, torch.zeros_like(latents_NCHW)), ids_N6, pictures=2),
        conditioning.encode_prompt(base, CLASS_PROMPT),
        name="class",
    )


@pytest.fixture
def course(nano_ssd_1b: Components, paths: list[Path]) -> Callable[..., Course]:
    """What a run has before its first step; but B is not zero, so that A has gradients too."""

    def prepare(**fields: object) -> Course:
        spec = spec_with(**fields)
        views = [
            view
            for number, path in enumerate(paths)
            for view in data.encode_views(path, number, spec, nano_ssd_1b, 64)
        ]
        made = Lora(nano_ssd_1b.unet, spec.lora, seed=0)
        with torch.no_grad():
            for b_OR in made.b:
                b_OR.normal_(0, 0.05, generator=torch.Generator().manual_seed(2))
        return Course(
            spec=spec,
            components=nano_ssd_1b,
            instance=Lesson(
                data.gather(views, len(paths)), conditioning.encode_prompt(nano_ssd_1b, PROMPT)
            ),
            prior=a_class(nano_ssd_1b) if spec.prior else None,
            process=noise.forward_process(nano_ssd_1b.scheduler.config, nano_ssd_1b.device),
            lora=made,
        )

    return prepare


@pytest.fixture(scope="module")
def run(
    nano_ssd_1b: Components, paths: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> list[StepReport]:
    """Twelve steps with samples on the way."""
    spec = spec_with(
        steps=12, trigger="sks", sample={"prompts": [PROMPT, "a cat"], "every": 8, "steps": 2}
    )
    return list(dreambooth.train(spec, nano_ssd_1b, paths, tmp_path_factory.mktemp("run")))


def gradients(course: Course, micros: int) -> list[Tensor]:
    with course.lora.attached(course.components.unet):
        for micro in range(micros):
            torch.autograd.backward(course.micro_loss(0, micro) / micros)
    return [parameter.grad for parameter in course.lora.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("fields", [{}, PRIOR], ids=["plain", "prior"])
def test_gradient_of_a_step_against_float64(
    course: Callable[..., Course], fields: dict[str, object]
) -> None:
    """The reference merges W + (alpha / rank) B A in float64 and squares by hand."""
    made = course(batch_size=2, **fields)
    ours = gradients(made, micros=1)
    reference_loss, theirs = reference(made)
    with made.lora.attached(made.components.unet):
        torch.testing.assert_close(made.micro_loss(0, 0).double(), reference_loss)
    scale = max(gradient.abs().max().item() for gradient in theirs)
    for mine, true in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.double(), true, rtol=1e-3, atol=1e-4 * scale)


def reference(course: Course) -> tuple[Tensor, list[Tensor]]:
    base, made = course.components, course.lora
    unet = copy.deepcopy(base.unet).double()
    halves = [
        (a.detach().double().requires_grad_(), b.detach().double().requires_grad_())
        for a, b in zip(made.a, made.b, strict=True)
    ]
    merged = {
        f"{name}.weight": unet.get_submodule(name).weight + 2.0 * (b @ a)
        for name, (a, b) in zip(made.targets, halves, strict=True)
    }

    def output(*inputs: Any, **told: Any) -> Tensor:
        answer: Tensor = torch.func.functional_call(unet, merged, inputs, told).sample
        return answer

    loss = reference_loss(output, base, course.instance, "")
    if course.prior and course.spec.prior:
        class_loss = reference_loss(output, base, course.prior, "class ")
        loss = loss + course.spec.prior.weight * class_loss
    # In the order of Lora's parameters: every A, then every B.
    leaves = [a for a, _ in halves] + [b for _, b in halves]
    return loss.detach(), list(torch.autograd.grad(loss, leaves))


def reference_loss(
    output: Callable[..., Tensor], base: Components, lesson: Lesson, name: str
) -> Tensor:
    """Of samples 0 and 1 under seed 5, one by one."""
    alphas = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000).double() ** 2).cumprod(0)
    losses = []
    for ordinal in (0, 1):
        picture = draws.example(5, f"{name}order", ordinal, lesson.examples.pictures)
        if name:
            clean = lesson.examples.moments.mean_BCHW[picture : picture + 1]
        else:
            pixels = latents.to_pixels(pictures.draw(picture))[None]
            clean = latents.encode(base.vae, pixels).sample(
                draws.normal(5, "posterior", [ordinal], (4, 16, 16))
            )
        added = draws.normal(5, f"{name}noise", [ordinal], (4, 16, 16)).double()
        timestep = draws.choices(5, f"{name}timestep", [ordinal], 1000)
        signal = alphas[timestep]
        predicted = output(
            signal.sqrt() * clean.double() + (1 - signal).sqrt() * added,
            timestep,
            encoder_hidden_states=lesson.prompt.text_1LD.double(),
            added_cond_kwargs={
                "text_embeds": lesson.prompt.pooled_1P.double(),
                "time_ids": torch.tensor([[32.0 if name else 64.0] * 2 + [0, 0, 64, 64]]).double(),
            },
        )
        losses.append(((predicted - added) ** 2).mean())
    return torch.stack(losses).mean()


def test_another_split_of_the_batch_gives_the_same_gradients(
    course: Callable[..., Course],
) -> None:
    whole = gradients(course(batch_size=4, accumulation=1, flip=True), micros=1)
    parts = gradients(course(batch_size=1, accumulation=4, flip=True), micros=4)
    scale = max(gradient.abs().max().item() for gradient in whole)
    for first, second in zip(whole, parts, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-5 * scale)


def returned_by(steps: Generator[StepReport, None, Lesson]) -> Lesson:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            lesson: Lesson = end.value
            return lesson


def test_class_pictures_are_those_that_the_base_draws(
    nano_ssd_1b: Components, paths: list[Path], tmp_path: Path
) -> None:
    spec = spec_with(steps=1, **PRIOR)
    drawing = class_pictures.draw(spec, nano_ssd_1b, 64, StepReport(0, 1, "drawing"))
    lesson = returned_by(drawing)
    second = sampling.denoise(
        nano_ssd_1b,
        prompt=conditioning.encode_prompt(nano_ssd_1b, CLASS_PROMPT),
        negative=conditioning.encode_negative(nano_ssd_1b, None),
        scheduler="euler",
        steps=25,
        guidance=5.0,
        height=64,
        width=64,
        generator=draws.generator(5, "class picture", 1),
    )
    assert torch.equal(lesson.examples.moments.mean_BCHW[1:], list(second)[-1])
    messages = [report.message for report in dreambooth.train(spec, nano_ssd_1b, paths, tmp_path)]
    assert messages.count("drawing class pictures") == 2 * 25


def test_checkpointing_changes_no_gradient(
    course: Callable[..., Course], nano_ssd_1b: Components
) -> None:
    plain = gradients(course(lora={"rank": 4, "dropout": 0.5}), micros=1)
    with dreambooth._checkpointing(nano_ssd_1b.unet, True):
        assert nano_ssd_1b.unet.is_gradient_checkpointing
        again = gradients(course(lora={"rank": 4, "dropout": 0.5}), micros=1)
    assert not nano_ssd_1b.unet.is_gradient_checkpointing
    torch.testing.assert_close(plain, again)


def test_the_loss_on_the_fixed_grid_falls(run: list[StepReport]) -> None:
    report = json.loads(run[-1].outputs["report"].read_text())
    grid = report["fixed_grid_loss"]
    assert grid["after"] < 0.99 * grid["before"]


def test_every_step_is_reported_and_losses_now_and_then(run: list[StepReport]) -> None:
    steps = [report for report in run if report.message == "training"]
    assert [report.step for report in steps] == list(range(1, 13))
    assert [report.step for report in steps if report.loss is not None] == [10, 12]
    assert {report.steps for report in run} == {12}
    assert all(report.learning_rate == 3e-3 for report in steps)
    assert all(report.seconds_per_step and report.seconds_per_step > 0 for report in steps)
    assert list(dict.fromkeys(report.message for report in run)) == [
        "encoding pictures", "measuring the base", "training", "sampling", "measuring the LoRA",
        "checking the export", "done",
    ]  # fmt: skip


def test_samples_are_pictures_from_seeds_that_never_change(run: list[StepReport]) -> None:
    rounds = [report.samples for report in run if report.samples]
    assert [[(s.step, s.prompt, s.seed) for s in samples] for samples in rounds] == [
        [(8, PROMPT, 5), (8, "a cat", 6)],
        [(12, PROMPT, 5), (12, "a cat", 6)],
    ]
    first, last = (samples[0].path for samples in rounds)
    with Image.open(first) as image:
        assert (image.format, image.size) == ("PNG", (64, 64))
    assert first.read_bytes() != last.read_bytes()


def test_outputs_come_with_the_last_report(run: list[StepReport]) -> None:
    assert all(not report.outputs for report in run[:-1])
    outputs = run[-1].outputs
    assert set(outputs) == {"lora", "report"}
    assert outputs["lora"].name == FILE_NAME
    with safe_open(outputs["lora"], "pt") as file:
        assert file.metadata()["modelspec.trigger_phrase"] == "sks"
    report = json.loads(outputs["report"].read_text())
    assert (report["base"], report["seed"], report["steps"]) == ("nano-ssd-1b", 5, 12)
    assert [step for step, _ in report["losses"]] == [10, 12]
    assert report["spec"]["lora"]["alpha"] == 8
    assert {"torch", "diffusers", "transformers"} <= report["versions"].keys()
    assert report["seconds_per_step"] > 0


def series(spec: FineTuneSpec, *rest: Any) -> tuple[list[float], dict[str, Tensor]]:
    reports = list(dreambooth.train(spec, *rest))
    losses = [report.loss for report in reports if report.loss is not None]
    return losses, load_file(reports[-1].outputs["lora"])


def test_the_same_seed_gives_the_same_series(
    nano_ssd_1b: Components, paths: list[Path], tmp_path: Path
) -> None:
    spec = spec_with(steps=3, lora={"rank": 2, "dropout": 0.1}, flip=True, deterministic=True)
    torch.manual_seed(1)
    first = series(spec, nano_ssd_1b, paths, tmp_path / "1")
    torch.manual_seed(2)
    again = series(spec, nano_ssd_1b, paths, tmp_path / "2")
    other = series(spec.model_copy(update={"seed": 6}), nano_ssd_1b, paths, tmp_path / "3")
    assert first[0] == again[0] != other[0]
    assert all(torch.equal(first[1][key], again[1][key]) for key in first[1])


@pytest.mark.parametrize("reports", [1, 12, 21, 30])
def test_closing_leaves_the_base_bit_equal(
    reports: int, nano_ssd_1b: Components, paths: list[Path], tmp_path: Path
) -> None:
    before, state = unet_output(nano_ssd_1b), torch.is_grad_enabled()
    spec = spec_with(
        steps=4, sample={"prompts": [PROMPT], "every": 2, "steps": 9}, gradient_checkpointing=True
    )
    training = dreambooth.train(spec, nano_ssd_1b, paths, tmp_path)
    messages = [next(training).message for _ in range(reports)]
    training.close()
    assert messages[-1] == {
        1: "encoding pictures", 12: "measuring the base", 21: "sampling", 30: "sampling",
    }[reports]  # fmt: skip
    assert torch.equal(unet_output(nano_ssd_1b), before)
    assert torch.is_grad_enabled() is state
    assert not nano_ssd_1b.unet.training
    assert not nano_ssd_1b.unet.is_gradient_checkpointing
    assert not any(parameter.requires_grad for parameter in nano_ssd_1b.unet.parameters())


def test_a_finished_run_leaves_the_base_bit_equal(
    run: list[StepReport], nano_folders: dict[str, Path], nano_ssd_1b: Components
) -> None:
    from tests.support import nano

    untouched = nano.load(nano_folders["nano-ssd-1b"])
    assert torch.equal(unet_output(nano_ssd_1b), unet_output(untouched))
    keys = nano_ssd_1b.unet.state_dict().keys()
    assert keys == untouched.unet.state_dict().keys()


def test_a_base_in_bfloat16_trains_a_lora_in_float32(
    nano_folders: dict[str, Path], paths: list[Path], tmp_path: Path
) -> None:
    half = components.load(
        nano_folders["nano-ssd-1b"], device=torch.device("cpu"), dtype=torch.bfloat16
    )
    reports = list(dreambooth.train(spec_with(steps=2), half, paths, tmp_path))
    tensors = load_file(reports[-1].outputs["lora"])
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert any(not torch.equal(tensor, tensor.bfloat16().float()) for tensor in tensors.values())


def test_a_rate_far_too_high_names_the_step_and_writes_no_lora(
    nano_ssd_1b: Components, paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = Course.micro_loss

    def explode(self: Course, step: int, micro: int) -> Tensor:
        return losses(self, step, micro) * (float("inf") if step == 1 else 1)

    monkeypatch.setattr(Course, "micro_loss", explode)
    with pytest.raises(NonFiniteLoss, match="at step 2"):
        list(dreambooth.train(spec_with(steps=4), nano_ssd_1b, paths, tmp_path))
    assert not (tmp_path / FILE_NAME).exists()


def test_running_out_of_memory_says_what_to_do(
    nano_ssd_1b: Components, paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object) -> Tensor:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(Course, "micro_loss", no_room)
    before = unet_output(nano_ssd_1b)
    with pytest.raises(OutOfMemory, match="`batch_size`"):
        list(dreambooth.train(spec_with(steps=4), nano_ssd_1b, paths, tmp_path))
    assert torch.equal(unet_output(nano_ssd_1b), before)


@pytest.mark.parametrize(
    ("fields", "pictures_count", "steps"),
    [
        ({}, 5, 500),
        ({"steps": 7}, 5, 7),
        ({"epochs": 3}, 5, 15),
        ({"epochs": 3, "batch_size": 2, "accumulation": 2}, 5, 4),
    ],
)
def test_count_steps(fields: dict[str, object], pictures_count: int, steps: int) -> None:
    assert spec_with(**fields).count_steps(pictures_count) == steps


def test_checkpointing_is_for_cuda_unless_told() -> None:
    wants = dreambooth._wants_checkpointing
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert [wants(spec_with(), cpu), wants(spec_with(), cuda)] == [False, True]
    told = [spec_with(gradient_checkpointing=value) for value in (True, False)]
    assert [wants(told[0], cpu), wants(told[1], cuda)] == [True, False]
