"""On a card: half-precision bases, fp32 adapters, and runs that repeat bit by bit when asked."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from core import bases, estimate
from core.diffusion import components
from core.diffusion.components import Components
from core.diffusion.lora import Lora
from core.footprints import footprint
from core.inference.engine import Engine
from core.inference.lora_shelf import LoraShelf
from core.inference.request import Progress, Request
from core.layouts import SDXL, SSD_1B, Layout
from core.specs import DistillSpec, FineTuneSpec, GenerateSpec, LoraSpec
from core.training import distill, fine_tune, memory
from core.training.data import Source
from tests.support import live_bytes, pictures, real_size

pytestmark = pytest.mark.gpu


@pytest.fixture
def on_card(nano_folders: Mapping[str, Path]) -> Components:
    return components.load(
        nano_folders["nano-ssd-1b"], device=torch.device("cuda:0"), dtype=torch.bfloat16
    )


def train(base: Components, folder: Path, out: Path) -> dict[str, torch.Tensor]:
    spec = FineTuneSpec(
        base="nano-ssd-1b",
        dataset="here",
        instance_prompt="a photo of sks dog",
        steps=10,
        learning_rate=1e-4,
        seed=1,
        deterministic=True,
    )
    *_, last = fine_tune.train(spec, base, [Source(p) for p in pictures.write(folder)], out)
    return load_file(last.outputs["lora"])


def test_a_base_in_bf16_trains_every_entry_of_the_adapter(
    on_card: Components, tmp_path: Path
) -> None:
    lora = train(on_card, tmp_path / "pictures", tmp_path / "out")
    assert all(tensor.dtype == torch.float32 for tensor in lora.values())
    moved = torch.cat([each.flatten() != 0 for name, each in lora.items() if "lora_B" in name])
    assert moved.float().mean() > 0.99


def test_deterministic_runs_are_bit_equal(on_card: Components, tmp_path: Path) -> None:
    first = train(on_card, tmp_path / "pictures", tmp_path / "first")
    second = train(on_card, tmp_path / "pictures", tmp_path / "second")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_same_request_gives_the_same_bytes(on_card: Components, tmp_path: Path) -> None:
    spec = GenerateSpec(
        base="nano-ssd-1b", prompt="a red circle", steps=4, seed=2, width=64, height=64
    )
    drawn = []
    for folder in ("first", "second"):
        drawing = Engine(on_card, LoraShelf(), lambda *_: 4)
        *_, last = drawing.draw([Request(spec, [], tmp_path / folder)])
        assert isinstance(last, Progress)
        assert last.picture
        drawn.append(last.picture.path.read_bytes())
    assert drawn[0] == drawn[1]


def test_a_student_learns_in_half_precision(
    nano_folders: Mapping[str, Path], tmp_path: Path
) -> None:
    teacher = components.load(
        nano_folders["nano-sdxl"], device=torch.device("cuda:0"), dtype=torch.bfloat16
    )
    sources = [
        Source(path, f"a photo of {path.stem}") for path in pictures.write(tmp_path / "pictures", 6)
    ]
    sample = {"prompts": ["a photo of a dog"], "every": 100, "steps": 2}
    spec = DistillSpec.model_validate(
        {"teacher": "nano-sdxl", "dataset": "d", "steps": 20, "learning_rate": 1e-4, "seed": 1}
        | {"sample": sample, "gradient_checkpointing": True}
    )
    *_, last = distill.train(spec, teacher, sources, tmp_path / "out")
    card = json.loads(last.outputs["report"].read_text())["card"]
    assert card["error_to_teacher"]["mean"]["after"] < card["error_to_teacher"]["mean"]["before"]
    assert teacher.unet.device.type == "cuda"


@pytest.mark.parametrize("again", [False, True])
def test_the_memory_table_of_students_is_what_a_card_holds(again: bool) -> None:
    card, base = torch.device("cuda:0"), replace(bases.find("sdxl"), layout=SSD_1B)
    teacher = on(card, SDXL, torch.bfloat16).requires_grad_(False)
    student = on(card, SSD_1B, torch.float32).train()
    if again:
        student.enable_gradient_checkpointing()
    memory.reset_peak(card)
    before = torch.cuda.memory_allocated(card)
    with card:
        live_bytes.teach(teacher, student, base, base.native_size, 1)
    held = (memory.peak_bytes(card) or 0) - before
    own, gradients = footprint(base).student, 4 * base.parameters
    assert own
    told = (
        gradients + own.checkpointed if again else estimate.GRADIENTS_AT_PEAK * gradients + own.kept
    )
    assert held < told * 1.1 + estimate.RUNTIME_BYTES / 2
    assert held > told * 0.8


def on(card: torch.device, layout: Layout, dtype: torch.dtype) -> Any:
    """A UNet of real size with random weights."""
    with torch.device("meta"):
        unet = real_size.unet(layout).to(dtype)
    unet = unet.to_empty(device=card)
    with torch.no_grad():
        for weight in unet.parameters():
            torch.nn.init.normal_(weight, 0, 0.02)
    return unet


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("name", ["ssd-1b", "sdxl"])
def test_the_memory_table_is_what_a_card_holds(name: str, again: bool) -> None:
    base, card = bases.find(name), torch.device("cuda:0")
    unet = on(card, base.layout, torch.bfloat16).requires_grad_(False)
    lora = Lora(unet, LoraSpec(rank=1), seed=0)
    if again:
        unet.enable_gradient_checkpointing()
        unet.train()
    memory.reset_peak(card)
    before = torch.cuda.memory_allocated(card)
    cells = base.native_size // 8
    half: dict[str, Any] = {"device": card, "dtype": torch.bfloat16}
    with lora.attached(unet):
        predicted_BCHW = unet(
            torch.randn(1, 4, cells, cells, **half),
            torch.tensor([500], device=card),
            encoder_hidden_states=torch.randn(1, 77, real_size.TEXT_WIDTH, **half),
            added_cond_kwargs={
                "text_embeds": torch.randn(1, real_size.POOLED_WIDTH, **half),
                "time_ids": torch.zeros(1, 6, **half),
            },
        ).sample
        torch.autograd.backward(predicted_BCHW.float().square().mean())
    held = (memory.peak_bytes(card) or 0) - before
    own = footprint(base).attention
    told = own.checkpointed if again else own.kept
    assert held < told * 1.1 + estimate.RUNTIME_BYTES / 2
    assert held > told * 0.8
