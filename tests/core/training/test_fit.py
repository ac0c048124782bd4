"""The ladder on a device: the rung that is taken, and that no rung changes what is learnt."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from core import bases, estimate
from core.diffusion.components import Components
from core.errors import OutOfMemory
from core.ladder import Rung, rungs
from core.layouts import UNetShape
from core.specs import FineTuneSpec
from core.training import fine_tune, fit, memory
from core.training.course import Course
from core.training.data import Source
from core.training.loss import Loss
from core.training.report import StepReport
from tests.support import pictures
from tests.support.nano import NUMPY_COPY, unet_output

pytestmark = NUMPY_COPY

CPU = torch.device("cpu")
SPEC: dict[str, Any] = {
    "base": "nano-ssd-1b",
    "dataset": "d",
    "instance_prompt": "a photo of sks dog",
    "seed": 5,
    "learning_rate": 3e-3,
    "steps": 3,
    "batch_size": 4,
    "snr_gamma": 5,
}


def spec_with(**fields: object) -> FineTuneSpec:
    return FineTuneSpec.model_validate(SPEC | fields)


@pytest.fixture
def sources(tmp_path: Path) -> list[Source]:
    return [Source(path) for path in pictures.write(tmp_path / "pictures", 4)]


def test_the_fastest_rung_that_fits_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_with(base="ssd-1b")
    base, ladder = bases.find("ssd-1b"), rungs(spec)

    def needed(rung: Rung) -> int:
        return estimate.training_bytes(spec, base, rung, pictures=2000, on_gpu=False)

    choose = partial(fit.choose, spec, base, CPU, pictures=2000)
    for number, rung in enumerate(ladder[:-1]):  # below them all, encoding takes the most
        room = needed(rung)
        monkeypatch.setattr(memory, "room_bytes", lambda _, room=room: room)
        assert choose(first=0) == number
        assert choose(first=number) == number
    monkeypatch.setattr(memory, "room_bytes", lambda _: 1)
    assert choose(first=0) == len(ladder) - 1
    uncounted = UNetShape(base.layout, (64, 96, 128), 256)
    assert fit.choose(spec, uncounted, CPU, pictures=2000, first=1) == 1
    monkeypatch.setattr(memory, "room_bytes", lambda _: None)
    assert choose(first=2) == 2


@pytest.mark.faults
def test_every_rung_learns_the_same(
    nano_ssd_1b: Components, sources: list[Source], tmp_path: Path
) -> None:
    learnt = {}
    for number, rung in enumerate(rungs(spec_with())):
        reports = run(nano_ssd_1b, sources, tmp_path / str(number), first_rung=number)
        learnt[rung] = load_file(reports[-1].outputs["lora"])
        said = [report.note for report in reports if report.note]
        assert said == ([f"memory is short: {rung}"] if number else [])
    first, *others = learnt.values()
    batches = [rung.micro_batch for rung in learnt]
    assert batches == [4, 4, 4, 2, 1]
    for other, batch in zip(others, batches[1:], strict=True):
        for name, matrix in first.items():
            if batch == 4:
                assert torch.equal(other[name], matrix)
            else:
                torch.testing.assert_close(other[name], matrix, rtol=0, atol=1e-4)
    assert max(matrix.abs().max() for name, matrix in first.items() if "lora_B" in name) > 5e-3


def test_out_of_memory_names_the_next_rung_until_there_is_none(
    nano_ssd_1b: Components, sources: list[Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    within = Course.micro_loss

    def too_small_for_two(course: Course, step: int, micro: int) -> Loss:
        if course.spec.batch_size > 1:
            raise torch.OutOfMemoryError
        return within(course, step, micro)

    monkeypatch.setattr(Course, "micro_loss", too_small_for_two)
    before = unet_output(nano_ssd_1b)
    for rung in range(4):
        with pytest.raises(OutOfMemory, match="`batch_size`") as full:
            run(nano_ssd_1b, sources, tmp_path / str(rung), first_rung=rung)
        assert full.value.next_rung == rung + 1
    run(nano_ssd_1b, sources, tmp_path / "4", first_rung=4)
    assert torch.equal(unet_output(nano_ssd_1b), before)

    def no_room(*_: object) -> Loss:
        return Loss(torch.empty(2**50))  # of the host's memory, where torch has no error of its own

    monkeypatch.setattr(Course, "micro_loss", no_room)
    with pytest.raises(OutOfMemory) as full:
        run(nano_ssd_1b, sources, tmp_path / "last", first_rung=4)
    assert full.value.next_rung is None


def test_there_is_room_for_less_than_all() -> None:
    room, total = memory.room_bytes(CPU), memory.total_bytes(CPU)
    assert room is not None
    assert total is not None
    assert 0 < room <= total


def run(
    components: Components, sources: list[Source], out: Path, *, first_rung: int
) -> list[StepReport]:
    steps: Iterator[StepReport] = fine_tune.train(
        spec_with(), components, sources, out, first_rung=first_rung
    )
    return list(steps)
