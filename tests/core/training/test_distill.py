"""The whole recipe on nano-sdxl: what it makes, that it can be broken off, what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from core import bases
from core.diffusion.components import Components
from core.diffusion.features import places
from core.errors import DatasetNotCaptioned, ExportMismatch, LayoutMismatch, NonFiniteLoss
from core.layouts import SSD_1B, VEGA
from core.specs import DistillSpec
from core.training import beginnings, distill, trainee
from core.training.cache import Cache
from core.training.data import Source
from core.training.distillation import Distillation
from core.training.loss import Loss
from core.training.report import StepReport
from core.training.trainee import Trainee
from tests.support import pictures
from tests.support.nano import NUMPY_COPY, load, unet_output

pytestmark = NUMPY_COPY

SAMPLE = {"prompts": ["a panda"], "every": 2, "steps": 2}
STEPS = 4
Run = Callable[..., list[StepReport]]


def spec_with(**fields: object) -> DistillSpec:
    return DistillSpec.model_validate(
        {
            "teacher": "nano-sdxl",
            "dataset": "d",
            "seed": 5,
            "steps": STEPS,
            "learning_rate": 1e-3,
            "optimizer": "adamw",
            "sample": SAMPLE,
            **fields,
        }
    )


@pytest.fixture(scope="module")
def teacher() -> Components:
    return load(bases.NANO_SDXL)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Source]:
    paths = pictures.write(tmp_path_factory.mktemp("pictures"), count=3)
    captions = ("a red ball", "a panda", "a teal cone on a gray background")
    return [Source(path, caption) for path, caption in zip(paths, captions, strict=True)]


@pytest.fixture(scope="module")
def run(
    teacher: Components, sources: list[Source], tmp_path_factory: pytest.TempPathFactory
) -> Run:
    """A run in a folder of its own; ``until`` breaks it off once that step is saved."""
    home = tmp_path_factory.mktemp("distill")

    def go(
        spec: DistillSpec, name: str, *from_: Path, until: int | None = None, **how: Any
    ) -> list[StepReport]:
        out, reports = home / name, []
        cache = Cache(home / "cache", links=out / "links")
        training = distill.train(
            spec, teacher, how.pop("sources", sources), out, cache=cache, checkpoints=from_, **how
        )
        for report in training:
            reports.append(report)
            if report.checkpoint and report.step == until:
                training.close()
                break
        return reports

    return go


@pytest.fixture(scope="module")
def whole(run: Run) -> list[StepReport]:
    return run(spec_with(ema=0.9, caption_dropout=0.3, keep_every=2), "whole")


def outputs(reports: list[StepReport]) -> dict[str, Path]:
    return reports[-1].outputs


def weights(reports: list[StepReport]) -> dict[str, Tensor]:
    return load_file(outputs(reports)["unet"] / "diffusion_pytorch_model.safetensors")


def told(reports: list[StepReport]) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(outputs(reports)["report"].read_text())
    return read


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_the_student_runs_in_a_pipeline_of_plain_diffusers(whole: list[StepReport]) -> None:
    """The article's second snippet, with paths in place of names."""
    unet = UNet2DConditionModel.from_pretrained(outputs(whole)["unet"])
    pipeline = StableDiffusionXLPipeline.from_pretrained(bases.NANO_SDXL, unet=unet)
    pipeline.set_progress_bar_config(disable=True)
    (picture,) = pipeline("a panda", num_inference_steps=2).images
    assert picture.size == (64, 64)
    assert sum(weight.numel() for weight in unet.parameters()) == SSD_1B.nano_parameters


def test_the_file_of_halves_is_all_that_loads(whole: list[StepReport]) -> None:
    assert sorted(path.name for path in outputs(whole)["unet"].iterdir()) == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]
    assert {tensor.dtype for tensor in weights(whole).values()} == {torch.float16}
    assert all(tensor.is_contiguous() for tensor in weights(whole).values())


def test_samples_show_the_teacher_beside_the_student(
    whole: list[StepReport], teacher: Components
) -> None:
    drawn = [sample for report in whole for sample in report.samples]
    *pairs, sheet = drawn
    assert [pair.step for pair in pairs] == [2, 4]
    halves = []
    for pair in pairs:
        with Image.open(pair.path) as picture:
            assert picture.size == (128, 64)
            halves.append(picture.crop((0, 0, 64, 64)).tobytes())
            assert picture.crop((64, 0, 128, 64)).tobytes() != halves[-1]
    assert halves[0] == halves[1]  # the teacher's
    with Image.open(sheet.path) as picture:
        assert picture.width > 3 * 64


def test_what_is_kept_on_the_way_loads_too(whole: list[StepReport]) -> None:
    (kept,) = [report.snapshot for report in whole if report.snapshot]
    assert kept.name == "unet-step-000002"
    assert UNet2DConditionModel.from_pretrained(kept).config.mid_block_type == "UNetMidBlock2D"


def test_the_report_card(whole: list[StepReport], teacher: Components) -> None:
    card = told(whole)["card"]
    assert card["parameters"] == {"teacher": 7_402_292, "student": 4_101_524}
    assert card["architecture"]["removed_blocks"] == 36
    assert "40" in card["architecture"]["why"]
    assert tuple(card["feature_error"]) == places(teacher.unet)
    bins = card["error_to_teacher"]["bins"]
    assert [each["timesteps"] for each in bins] == [
        [0, 199],
        [200, 399],
        [400, 599],
        [600, 799],
        [800, 999],
    ]
    mean = card["error_to_teacher"]["mean"]
    assert mean["before"] == pytest.approx(sum(each["before"] for each in bins) / 5)
    assert mean["before"] != mean["after"]
    # what a cut leaves as it was answers as the teacher does
    assert card["feature_error"]["down_blocks.0.resnets.0"]["before"] == 0
    assert card["feature_error"]["mid_block"]["before"] > 0
    assert set(card["task_error"]) == {"teacher", "before", "after"}
    assert 0 < card["peak_memory_bytes"]["student"] < card["peak_memory_bytes"]["teacher"]
    assert min(card["seconds_per_denoising_step"].values()) > 0  # who is faster, a bench tells


def test_it_leaves_the_teacher_as_it_was(run: Run, teacher: Components) -> None:
    before = unet_output(teacher)
    run(spec_with(steps=1), "once")
    assert torch.equal(unet_output(teacher), before)
    assert not any(weight.requires_grad for weight in teacher.unet.parameters())


@pytest.mark.parametrize(
    ("optimizer", "breaks"),
    [
        pytest.param("adamw", [1, STEPS], marks=pytest.mark.faults),
        pytest.param("adafactor", [2], marks=pytest.mark.faults),
    ],
)
def test_broken_off_after_any_step_it_ends_alike(
    optimizer: str, breaks: list[int], run: Run
) -> None:
    spec = spec_with(
        optimizer=optimizer,
        ema=0.9,
        accumulation=2,
        caption_dropout=0.3,
        flip=True,
        schedule="cosine",
        snr_gamma=5,
        checkpoint_every=1,
        gradient_checkpointing=True,
        sample={**SAMPLE, "steps": 1, "every": 99},
    )
    unbroken = run(spec, f"{optimizer}-whole")
    for step in breaks:
        before = run(spec, f"{optimizer}-until-{step}", until=step)
        folders = [report.checkpoint for report in reversed(before) if report.checkpoint]
        after = run(spec, f"{optimizer}-from-{step}", *folders)
        assert same(weights(unbroken), weights(after))
        assert (told(after)["exact"], told(after)["resumed_from_step"]) == (True, step)
        assert told(after)["card"]["error_to_teacher"] == told(unbroken)["card"]["error_to_teacher"]


def test_it_goes_on_from_what_was_made_before(run: Run, whole: list[StepReport]) -> None:
    spec = spec_with(student={"init": "pretrained", "weights": "art_1"}, steps=1)
    again = run(spec, "again", start=outputs(whole)["unet"])
    assert told(again)["card"]["error_to_teacher"]["mean"]["before"] == pytest.approx(
        told(whole)["card"]["error_to_teacher"]["mean"]["after"], rel=1e-3
    )


@pytest.mark.faults
def test_vega_too(run: Run, teacher: Components) -> None:
    made = run(spec_with(student={"layout": "vega", "layers": [3, 7]}, steps=1), "vega")
    assert told(made)["card"]["parameters"]["student"] == VEGA.nano_parameters
    assert outputs(made)["checkpoint"].name == "vega.safetensors"


def test_what_is_exported_is_the_average(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kept: list[Trainee] = []
    enrol = trainee.enrol

    def keeping(*arguments: Any, **named: Any) -> Trainee:
        kept.append(enrol(*arguments, **named))
        return kept[-1]

    monkeypatch.setattr("core.training.distill.enrol", keeping)
    made = weights(run(spec_with(ema=0.5), "average"))
    average = kept[0].average
    assert average
    for (name, last), mean in zip(kept[0].weights.items(), average.tensors, strict=True):
        assert torch.equal(made[name], mean.half())
        assert name.endswith("bias") or not torch.equal(last, mean)


def test_pictures_without_captions_are_refused(run: Run, sources: list[Source]) -> None:
    with pytest.raises(DatasetNotCaptioned, match="no caption"):
        run(spec_with(), "mute", sources=[Source(sources[0].picture)])


def test_weights_of_another_layout_are_refused(
    run: Run, teacher: Components, tmp_path: Path
) -> None:
    beginnings.fresh(spec_with().student, None, teacher).save_pretrained(tmp_path / "unet")
    vega = spec_with(student={"init": "pretrained", "layout": "vega", "weights": "art_1"})
    with pytest.raises(LayoutMismatch, match=r"are of ssd-1b, `student.layout` is vega"):
        run(vega, "other", start=tmp_path / "unet")


def test_a_rate_far_too_high_names_the_step_and_writes_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    losses = Distillation.micro_loss

    def explode(self: Distillation, step: int, micro: int) -> Loss:
        loss = losses(self, step, micro)
        return Loss(loss.total * (float("inf") if step == 1 else 1), loss.terms)

    monkeypatch.setattr(Distillation, "micro_loss", explode)
    with pytest.raises(NonFiniteLoss, match="at step 2"):
        run(spec_with(), "exploded")


def test_training_that_changes_nothing_is_no_export(run: Run) -> None:
    with pytest.raises(ExportMismatch, match="changed nothing"):
        run(spec_with(steps=1, learning_rate=1e-30, weight_decay=0), "still")
