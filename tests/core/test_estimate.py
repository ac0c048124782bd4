"""The table of what bases hold, counted again; and what is made of it."""

from dataclasses import replace
from pathlib import Path

import pytest

from core import bases, estimate
from core.bases import BaseModel
from core.footprints import Held, footprint
from core.ladder import Rung, rungs
from core.layouts import SSD_1B, VEGA, Layout
from core.specs import DistillSpec, FineTuneSpec, GenerateSpec, LoraSpec
from tests.support import live_bytes

FAST = Rung(rows_on_device=True, checkpointing=False, micro_batch=1)
SMALL = Rung(rows_on_device=False, checkpointing=True, micro_batch=1)
GB = 1e9
Training = FineTuneSpec | DistillSpec


def base_of(name: str) -> BaseModel:
    return bases.find(name)


def spec_with(**fields: object) -> FineTuneSpec:
    return FineTuneSpec.model_validate(
        {"base": "ssd-1b", "dataset": "d", "instance_prompt": "sks", **fields}
    )


@pytest.mark.faults
@pytest.mark.parametrize("name", ["ssd-1b", "nano-ssd-1b"])
def test_the_table_is_what_the_code_holds(name: str) -> None:
    base, own = base_of(name), footprint(base_of(name))
    for targets, held in (("attention", own.attention), ("transformer", own.transformer)):
        lora = LoraSpec(rank=1, targets=targets)
        gradients = estimate.lora_bytes(lora, base)
        counted = Held(
            *(
                live_bytes.of_a_step(base, base.native_size, lora, checkpointing=again) - gradients
                for again in (False, True)
            )
        )
        assert held.kept == pytest.approx(counted.kept, rel=0.05)
        assert held.checkpointed == pytest.approx(counted.checkpointed, rel=0.1)
    forward = live_bytes.of_a_forward(base, base.native_size)
    assert own.family.forward == pytest.approx(forward, rel=0.05)
    vae = live_bytes.of_the_vae(base, base.native_size)
    assert (own.family.encode, own.family.decode) == pytest.approx(vae, rel=0.05)


def test_activations_grow_with_pixels() -> None:
    base, lora = base_of("ssd-1b"), LoraSpec(rank=1)
    half = live_bytes.of_a_step(base, 512, lora, checkpointing=False)
    assert half == pytest.approx(footprint(base_of("ssd-1b")).attention.kept / 4, rel=0.05)


def test_each_chunk_of_a_text_is_counted_for_both_sides() -> None:
    """In fp32 some 24 MB a side."""
    spec = GenerateSpec(base="ssd-1b", prompt="a dog", precision="fp32")
    one, two, many = (
        estimate.drawn_bytes(spec, bases.find("ssd-1b"), on_gpu=True, chunks=chunks)
        for chunks in (1, 2, 32)
    )
    assert two - one == 2 * 4 * estimate.text_numbers(bases.find("ssd-1b"))
    assert many - one == 31 * (two - one)


def test_dropout_keeps_no_more_than_half_as_much_again() -> None:
    base, lora = base_of("ssd-1b"), LoraSpec(rank=1, targets="transformer", dropout=0.1)
    held = live_bytes.of_a_step(base, 512, lora, checkpointing=False)
    assert held < estimate.DROPOUT * footprint(base_of("ssd-1b")).transformer.kept / 4


@pytest.mark.parametrize(
    ("layout", "teacher"),
    [
        pytest.param(SSD_1B, "sdxl", marks=pytest.mark.faults),
        pytest.param(SSD_1B, "nano-sdxl", marks=pytest.mark.faults),
        pytest.param(VEGA, "nano-sdxl", marks=pytest.mark.faults),
    ],
)
def test_the_table_of_students_is_what_the_code_holds(layout: Layout, teacher: str) -> None:
    base = base_of(teacher)
    student = replace(base, layout=layout)
    gradients, held = estimate.FLOAT32 * student.parameters, footprint(student).student
    assert held
    told = (
        estimate.GRADIENTS_AT_PEAK * gradients + 3 * held.kept,
        gradients + 3 * held.checkpointed,
    )
    counted = [
        live_bytes.of_a_distillation(student, base.native_size, 3, checkpointing=again)
        for again in (False, True)
    ]
    assert told == pytest.approx(counted, rel=0.05)
    assert held.adafactor == live_bytes.numbers_of_adafactor(student)


def test_a_student_of_sdxl_fits_its_budget_at_1024_px() -> None:
    needed = estimate.training_bytes(
        DistillSpec(teacher="sdxl", dataset="d"), base_of("sdxl"), SMALL, pictures=10, on_gpu=True
    )
    assert needed < 18 * GB


@pytest.mark.parametrize(("name", "most"), [("ssd-1b", 6 * GB), ("sdxl", 8.5 * GB)])
def test_a_lora_fits_its_budget_at_1024_px(name: str, most: float) -> None:
    spec = spec_with(base=name, sample={"prompts": ["a dog"]})
    needed = estimate.training_bytes(spec, base_of(name), SMALL, pictures=10, on_gpu=True)
    assert needed < most


def test_each_rung_takes_less_than_the_one_above() -> None:
    spec = spec_with(batch_size=6)
    found = rungs(spec)
    needed = [
        estimate.training_bytes(spec, base_of("ssd-1b"), rung, pictures=2000, on_gpu=True)
        for rung in found
    ]
    assert [rung.micro_batch for rung in found] == [6, 6, 6, 3, 2, 1]
    assert needed == sorted(needed, reverse=True)
    assert len(set(needed)) > 3  # at the bottom, loading the base takes the most
    assert all(rung.split(spec).batch_size * rung.split(spec).accumulation == 6 for rung in found)


def test_the_readme_has_the_table() -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text()
    for name in ("ssd-1b", "sdxl"):
        for side in (512, 768, 1024):
            specs = [spec_with(base=name, resolution=side, batch_size=batch) for batch in (1, 4)]
            assert f"| `{name}` | {side} | {_columns(base_of(name), *specs)} |" in text
    for layout in ("ssd-1b", "vega"):
        for side in (512, 768, 1024):
            fields = {"teacher": "sdxl", "dataset": "d", "resolution": side}
            fields |= {"student": {"layout": layout}}
            one, four = (
                DistillSpec.model_validate(fields | {"batch_size": batch}) for batch in (1, 4)
            )
            assert f"| `{layout}` | {side} | {_columns(base_of('sdxl'), one, four)} |" in text


def _columns(base: BaseModel, one: Training, four: Training) -> str:
    """Of the README's table: GB on a card for batches of one and of four."""
    asked = [(one, 0), (four, 0), (four, 2), (one, -1)]
    figures = [
        estimate.training_bytes(spec, base, rungs(spec)[rung], pictures=20, on_gpu=True)
        for spec, rung in asked
    ]
    return " | ".join(f"{figure / GB:.1f}" for figure in figures)


@pytest.mark.parametrize("asked", [True, False])
def test_what_the_spec_settles_stays(asked: bool) -> None:
    spec = spec_with(batch_size=4, gradient_checkpointing=asked)
    assert {rung.checkpointing for rung in rungs(spec)} == {asked}
