"""A run that is broken off anywhere and gone on with ends with the bits of one that was not."""

import json
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from core.diffusion.components import Components
from core.errors import Interrupted, WrongCheckpoint
from core.specs import FineTuneSpec
from core.training import checkpoint, fine_tune
from core.training.cache import Cache
from core.training.checkpoint import Damaged
from core.training.data import Source
from core.training.pace import Pace
from core.training.report import StepReport
from tests.support import pictures
from tests.support.nano import NUMPY_COPY, unet_output

pytestmark = NUMPY_COPY

STEPS = 5
HARD: dict[str, Any] = {
    "batch_size": 1,
    "accumulation": 2,
    "ema": 0.9,
    "lora": {"rank": 2, "dropout": 0.2},
    "flip": True,
    "crop": "random",
    "crop_variants": 2,
    "caption_dropout": 0.2,
    "noise_offset": 0.1,
    "snr_gamma": 5,
    "schedule": "cosine",
    "warmup_steps": 2,
}
"""Three pictures and two samples a step: every other step ends in the middle of an epoch."""


def spec_with(steps: int = STEPS, **fields: object) -> FineTuneSpec:
    return FineTuneSpec.model_validate(
        {
            "base": "nano-ssd-1b",
            "dataset": "d",
            "instance_prompt": "a photo of sks dog",
            "seed": 5,
            "learning_rate": 3e-3,
            "steps": steps,
            "checkpoint_every": 1,
            **fields,
        }
    )


@pytest.fixture
def train(nano_ssd_1b: Components, tmp_path: Path) -> Callable[..., list[StepReport]]:
    """A run in a folder of its own; ``until`` breaks it off once that step is saved."""
    sources = [Source(path) for path in pictures.write(tmp_path / "pictures", count=3)]

    def start(
        spec: FineTuneSpec, name: str, *from_: Path, until: int | None = None
    ) -> list[StepReport]:
        out = tmp_path / name
        reports: list[StepReport] = []
        cache = Cache(tmp_path / "cache", links=out / "links")
        run = fine_tune.train(spec, nano_ssd_1b, sources, out, cache=cache, checkpoints=from_)
        for report in run:
            reports.append(report)
            if report.checkpoint and report.step == until:
                run.close()
                break
        return reports

    return start


def saved(reports: list[StepReport]) -> list[Path]:
    """Checkpoints, the newest first."""
    return [report.checkpoint for report in reversed(reports) if report.checkpoint]


def lora(reports: list[StepReport]) -> dict[str, Tensor]:
    return load_file(reports[-1].outputs["lora"])


def summary(reports: list[StepReport]) -> dict[str, object]:
    read: dict[str, object] = json.loads(reports[-1].outputs["report"].read_text())
    return read


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    ("optimizer", "breaks"),
    [
        ("adamw", [3]),
        pytest.param("adamw", range(1, STEPS + 1), marks=pytest.mark.faults),
        pytest.param("adafactor", [3], marks=pytest.mark.faults),
    ],
)
def test_broken_off_after_any_step_it_ends_alike(
    optimizer: str, breaks: Sequence[int], train: Callable[..., list[StepReport]]
) -> None:
    spec = spec_with(**HARD, optimizer=optimizer)
    whole = train(spec, "whole")
    for step in breaks:
        before = train(spec, f"until-{step}", until=step)
        after = train(spec, f"from-{step}", *saved(before))
        assert [report.step for report in after if report.message == "training"] == list(
            range(step + 1, STEPS + 1)
        )
        assert same(lora(whole), lora(after))
        told = summary(after)
        assert (told["exact"], told["resumed_from_step"]) == (True, step)
        assert told["losses"] == summary(whole)["losses"]


@pytest.mark.faults
def test_breaking_off_again_and_again_changes_nothing(
    train: Callable[..., list[StepReport]],
) -> None:
    spec = spec_with(**HARD)
    folders: list[Path] = []
    for step in range(1, STEPS + 1):
        folders = saved(train(spec, f"part-{step}", *folders, until=step))
    assert same(lora(train(spec, "whole")), lora(train(spec, "last", *folders)))


@pytest.mark.faults
def test_a_run_made_longer_is_the_longer_run(train: Callable[..., list[StepReport]]) -> None:
    short = train(spec_with(2, ema=0.9), "short")
    longer = train(spec_with(4, ema=0.9), "longer", *saved(short))
    assert same(lora(train(spec_with(4, ema=0.9), "whole")), lora(longer))
    assert not same(lora(short), lora(longer))


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    train: Callable[..., list[StepReport]],
) -> None:
    spec = spec_with(3)
    newest, older = saved(train(spec, "first", until=2))
    file = newest / checkpoint.TENSORS
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    with pytest.raises(Damaged, match="is not what was written"):
        checkpoint.read(newest)
    again = train(spec, "again", newest, older)
    assert summary(again)["resumed_from_step"] == 1
    assert same(lora(train(spec, "whole")), lora(again))


def test_another_lesson_is_refused(train: Callable[..., list[StepReport]]) -> None:
    folders = saved(train(spec_with(2), "first", until=1))
    with pytest.raises(WrongCheckpoint, match="step-00000001"):
        train(spec_with(2, learning_rate=1e-3), "second", *folders)


@pytest.mark.faults
def test_another_thread_count_goes_on_and_is_told(
    train: Callable[..., list[StepReport]],
) -> None:
    folders = saved(train(spec_with(2), "first", until=1))
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        assert summary(train(spec_with(2), "second", *folders))["exact"] is False
    finally:
        torch.set_num_threads(threads)


def test_two_checkpoints_are_kept(train: Callable[..., list[StepReport]]) -> None:
    folder = saved(train(spec_with(4), "run"))[0].parent
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000003", "step-00000004"]


def interrupt(run: Generator[StepReport, None, None], at: str) -> StepReport:
    """Throws at the first report of that message; the one more report that comes."""
    for report in run:
        if report.message == at and report.step != 1:
            saved = run.throw(Interrupted())
            with pytest.raises(Interrupted):
                next(run)
            return saved
    raise AssertionError(f"nothing said {at}")


SAMPLE = {"prompts": ["a cat"], "every": 2, "steps": 2}


@pytest.mark.parametrize("at", [pytest.param("training", marks=pytest.mark.faults), "sampling"])
def test_a_run_that_is_interrupted_saves_its_last_step(
    at: str, nano_ssd_1b: Components, tmp_path: Path, train: Callable[..., list[StepReport]]
) -> None:
    spec = spec_with(4, checkpoint_every=None, sample=SAMPLE)
    before = unet_output(nano_ssd_1b)
    sources = [Source(path) for path in sorted((tmp_path / "pictures").iterdir())]
    report = interrupt(fine_tune.train(spec, nano_ssd_1b, sources, tmp_path / "first"), at)
    assert torch.equal(unet_output(nano_ssd_1b), before)
    assert report.step == 2
    assert report.checkpoint
    after = train(spec, "second", report.checkpoint)
    assert same(lora(train(spec, "whole")), lora(after))
    # the pictures of the step that was saved are drawn again
    assert [sample.step for report in after for sample in report.samples] == [2, 4]


def test_loras_on_the_way_are_those_of_their_steps(
    train: Callable[..., list[StepReport]],
) -> None:
    reports = train(spec_with(4, keep_every=2, ema=0.9, sample=SAMPLE | {"every": 100}), "run")
    (kept,) = [report for report in reports if report.snapshot]
    assert kept.step == 2
    assert kept.snapshot
    assert same(load_file(kept.snapshot), lora(train(spec_with(2, ema=0.9), "short")))
    # its samples too, and the last ones; what is the last LoRA is not kept twice
    assert [sample.step for report in reports for sample in report.samples] == [2, 4]


def test_interrupted_before_the_first_step_there_is_nothing_to_save(
    nano_ssd_1b: Components, tmp_path: Path
) -> None:
    sources = [Source(path) for path in pictures.write(tmp_path / "pictures", count=3)]
    run = fine_tune.train(spec_with(4), nano_ssd_1b, sources, tmp_path)
    assert next(run).message == "encoding pictures"
    with pytest.raises(Interrupted):
        run.throw(Interrupted())


def test_the_pace_follows_what_a_save_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    pace = Pace(None)
    for at, due in ((59.0, False), (60.0, True)):
        now = at
        assert pace.is_due(1) is due
    now = 64.0
    pace.saved(60.0)  # it took 4 s: the next in 200
    for at, due in ((263.0, False), (264.0, True)):
        now = at
        assert pace.is_due(2) is due
    now = 364.0
    pace.saved(264.0)
    now = 364.0 + 20 * 60
    assert pace.is_due(3)
    assert [Pace(3).is_due(step) for step in range(1, 7)] == [False, False, True] * 2
