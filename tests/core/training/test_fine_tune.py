"""The whole recipe on nano-ssd-1b: what it learns, what it leaves, and that it can be stopped."""

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from core.diffusion import components, conditioning, sampling
from core.diffusion.components import Components
from core.diffusion.lora_file import FILE_NAME
from core.errors import NonFiniteLoss
from core.specs import FineTuneSpec
from core.training import class_pictures, draws, fine_tune
from core.training.cache import Cache
from core.training.course import Course
from core.training.data import Source
from core.training.loss import Loss
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
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Source]:
    written = pictures.write(tmp_path_factory.mktemp("pictures"), count=3)
    return [Source(path) for path in written]


@pytest.fixture(scope="module")
def run(
    nano_ssd_1b: Components, paths: list[Source], tmp_path_factory: pytest.TempPathFactory
) -> list[StepReport]:
    """Twelve steps with samples on the way."""
    spec = spec_with(
        steps=12, trigger="sks", sample={"prompts": [PROMPT, "a cat"], "every": 8, "steps": 2}
    )
    return list(fine_tune.train(spec, nano_ssd_1b, paths, tmp_path_factory.mktemp("run")))


def returned_by(steps: Generator[StepReport, None, list[str]]) -> list[str]:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            keys: list[str] = end.value
            return keys


def test_class_pictures_are_those_that_the_base_draws(
    nano_ssd_1b: Components, paths: list[Source], tmp_path: Path
) -> None:
    cache = Cache(tmp_path / "cache", links=tmp_path / "links")
    drawing = class_pictures.draw(
        nano_ssd_1b, CLASS_PROMPT, 2, 64, cache, StepReport(0, 1, "drawing")
    )
    keys = returned_by(drawing)
    row = sampling.Row(
        prompt=conditioning.encode_prompt(nano_ssd_1b, CLASS_PROMPT),
        negative=conditioning.encode_negative(nano_ssd_1b, None),
        guidance=5.0,
        generator=draws.generator(0, "class picture", 1),
    )
    second = sampling.denoise(nano_ssd_1b, [row], scheduler="euler", steps=25, height=64, width=64)
    assert torch.equal(cache.read(keys[1])["mean"], list(second)[-1])


def test_what_was_encoded_or_drawn_once_is_shared_by_the_next_run(
    nano_ssd_1b: Components, paths: list[Source], tmp_path: Path
) -> None:
    messages, tensors = [], []
    for name in ("first", "second"):
        cache = Cache(tmp_path / "cache", links=tmp_path / name / "links")
        spec = spec_with(steps=2, **PRIOR)
        reports = list(fine_tune.train(spec, nano_ssd_1b, paths, tmp_path / name, cache=cache))
        messages.append([report.message for report in reports])
        tensors.append(load_file(reports[-1].outputs["lora"]))
        report = json.loads(reports[-1].outputs["report"].read_text())
        # three pictures, two prompts, two class pictures
        expected = {"hits": 0, "misses": 7} if name == "first" else {"hits": 7, "misses": 0}
        assert report["cache"] == expected
        assert report["class_drift"] > 0
    assert [said.count("drawing class pictures") for said in messages] == [2 * 25, 0]
    assert all(torch.equal(tensors[0][key], tensors[1][key]) for key in tensors[0])


def test_a_set_that_outgrows_the_cache_is_encoded_in_the_steps_to_the_same_end(
    nano_ssd_1b: Components, paths: list[Source], tmp_path: Path
) -> None:
    spec = spec_with(steps=2)
    small = Cache(tmp_path / "cache", links=tmp_path / "links", cap_bytes=10)
    _, small_tensors = series(spec, nano_ssd_1b, paths, tmp_path / "1", cache=small)
    _, tensors = series(spec, nano_ssd_1b, paths, tmp_path / "2")
    assert all(torch.equal(tensors[key], small_tensors[key]) for key in tensors)


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
        "encoding pictures", "training", "sampling", "saving", "measuring the LoRA",
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
    assert {role: path.name for role, path in outputs.items()} == {
        "lora": FILE_NAME,
        "lora_kohya": "lora_kohya_ssd1b.safetensors",
        "report": "report.json",
    }
    with safe_open(outputs["lora_kohya"], "pt") as file:
        assert file.metadata()["modelspec.trigger_phrase"] == "sks"
        assert file.metadata()["modelspec.resolution"] == "64x64"
    with safe_open(outputs["lora"], "pt") as file:
        assert file.metadata()["modelspec.trigger_phrase"] == "sks"
    report = json.loads(outputs["report"].read_text())
    assert (report["base"], report["seed"], report["steps"]) == ("nano-ssd-1b", 5, 12)
    assert [step for step, _ in report["losses"]] == [10, 12]
    assert report["spec"]["lora"]["alpha"] == 8
    assert {"torch", "diffusers", "transformers", "dtype", "device", "threads"} <= report.keys()
    assert report["peak_memory_bytes"] > 1e8
    assert (report["exact"], report["resumed_from_step"]) == (True, 0)
    assert report["class_drift"] is None
    assert report["seconds_per_step"] > 0


def series(spec: FineTuneSpec, *rest: Any, **options: Any) -> tuple[list[float], dict[str, Tensor]]:
    reports = list(fine_tune.train(spec, *rest, **options))
    losses = [report.loss for report in reports if report.loss is not None]
    return losses, load_file(reports[-1].outputs["lora"])


def test_the_same_seed_gives_the_same_series(
    nano_ssd_1b: Components, paths: list[Source], tmp_path: Path
) -> None:
    spec = spec_with(steps=3, lora={"rank": 2, "dropout": 0.1}, flip=True, deterministic=True)
    torch.manual_seed(1)
    first = series(spec, nano_ssd_1b, paths, tmp_path / "1")
    torch.manual_seed(2)
    again = series(spec, nano_ssd_1b, paths, tmp_path / "2")
    other = series(spec.model_copy(update={"seed": 6}), nano_ssd_1b, paths, tmp_path / "3")
    assert first[0] == again[0] != other[0]
    assert all(torch.equal(first[1][key], again[1][key]) for key in first[1])


@pytest.mark.parametrize("reports", [1, 5, 8, 30])
def test_closing_leaves_the_base_bit_equal(
    reports: int, nano_ssd_1b: Components, paths: list[Source], tmp_path: Path
) -> None:
    before, state = unet_output(nano_ssd_1b), torch.is_grad_enabled()
    spec = spec_with(
        steps=4, sample={"prompts": [PROMPT], "every": 2, "steps": 9}, gradient_checkpointing=True
    )
    training = fine_tune.train(spec, nano_ssd_1b, paths, tmp_path)
    messages = [next(training).message for _ in range(reports)]
    training.close()
    assert messages[-1] == {
        1: "encoding pictures", 5: "training", 8: "sampling", 30: "measuring the LoRA",
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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_base_in_half_precision_trains_a_lora_in_float32(
    dtype: torch.dtype, nano_folders: dict[str, Path], paths: list[Source], tmp_path: Path
) -> None:
    half = components.load(nano_folders["nano-ssd-1b"], device=torch.device("cpu"), dtype=dtype)
    reports = list(fine_tune.train(spec_with(steps=2), half, paths, tmp_path))
    tensors = load_file(reports[-1].outputs["lora"])
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert any(not torch.equal(tensor, tensor.to(dtype).float()) for tensor in tensors.values())


def test_a_rate_far_too_high_names_the_step_and_writes_no_lora(
    nano_ssd_1b: Components, paths: list[Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = Course.micro_loss

    def explode(self: Course, step: int, micro: int) -> Loss:
        return Loss(losses(self, step, micro).total * (float("inf") if step == 1 else 1))

    monkeypatch.setattr(Course, "micro_loss", explode)
    with pytest.raises(NonFiniteLoss, match="at step 2"):
        list(fine_tune.train(spec_with(steps=4), nano_ssd_1b, paths, tmp_path))
    assert not (tmp_path / FILE_NAME).exists()


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
