"""Pictures from requests: the same for the same, and labelled with what made them."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from core.diffusion.components import Components
from core.errors import LayoutMismatch, OutOfMemory
from core.inference import engine
from core.inference.engine import DenoiseReport, Picture
from core.specs import GenerateSpec
from tests.support.nano import NUMPY_COPY, lora_file, unet_output

pytestmark = NUMPY_COPY


def spec_with(**fields: object) -> GenerateSpec:
    return GenerateSpec.model_validate(
        {"base": "nano-ssd-1b", "prompt": "a dog", "steps": 2, "seed": 7, **fields}
    )


def draw(
    spec: GenerateSpec, components: Components, out: Path, *loras: tuple[Path, float]
) -> list[Picture]:
    reports = engine.generate(spec, components, loras, out)
    return [report.picture for report in reports if report.picture]


def pixels(picture: Picture) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    with Image.open(picture.path) as image:
        return np.array(image)


def test_the_same_request_gives_the_same_bytes(nano_ssd_1b: Components, tmp_path: Path) -> None:
    lora = lora_file(nano_ssd_1b, tmp_path / "a.safetensors")
    torch.manual_seed(1)
    (first,) = draw(spec_with(), nano_ssd_1b, tmp_path / "1", (lora, 0.5))
    torch.manual_seed(2)
    (again,) = draw(spec_with(), nano_ssd_1b, tmp_path / "2", (lora, 0.5))
    assert first.path.read_bytes() == again.path.read_bytes()


def test_equal_to_the_pipeline(nano_ssd_1b: Components, tmp_path: Path) -> None:
    (picture,) = draw(spec_with(), nano_ssd_1b, tmp_path)
    pipeline = nano_ssd_1b.pipeline()
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        "a dog", num_inference_steps=2, generator=torch.Generator().manual_seed(7)
    ).images[0]
    assert np.array_equal(pixels(picture), np.array(expected))


def test_a_lora_changes_the_picture_and_leaves_the_next_one_alone(
    nano_ssd_1b: Components, tmp_path: Path
) -> None:
    lora = lora_file(nano_ssd_1b, tmp_path / "a.safetensors")
    (before,) = draw(spec_with(), nano_ssd_1b, tmp_path / "1")
    (styled,) = draw(spec_with(), nano_ssd_1b, tmp_path / "2", (lora, 1.0))
    (weightless,) = draw(spec_with(), nano_ssd_1b, tmp_path / "3", (lora, 0.0))
    (after,) = draw(spec_with(), nano_ssd_1b, tmp_path / "4")
    assert np.abs(pixels(styled).astype(int) - pixels(before)).mean() > 1
    assert np.array_equal(pixels(weightless), pixels(before))
    assert after.path.read_bytes() == before.path.read_bytes()


def test_image_k_of_each_prompt_has_seed_plus_k(nano_ssd_1b: Components, tmp_path: Path) -> None:
    spec = spec_with(prompt=["a dog", "a cat"], images=2, seed=2**32 - 1, steps=1)
    pictures = draw(spec, nano_ssd_1b, tmp_path)
    assert [(picture.index, picture.prompt, picture.seed) for picture in pictures] == [
        (0, "a dog", 2**32 - 1),
        (1, "a dog", 0),
        (2, "a cat", 2**32 - 1),
        (3, "a cat", 0),
    ]
    assert len({picture.path for picture in pictures}) == 4
    (alone,) = draw(spec_with(prompt="a cat", seed=0, steps=1), nano_ssd_1b, tmp_path / "alone")
    assert pictures[3].path.read_bytes() == alone.path.read_bytes()


def test_reports_count_steps_and_images(nano_ssd_1b: Components, tmp_path: Path) -> None:
    reports = list(engine.generate(spec_with(images=2), nano_ssd_1b, [], tmp_path))
    counted = [(report.image, report.step, report.picture is not None) for report in reports]
    assert counted == [
        (0, 1, False), (0, 2, False), (0, 2, True),
        (1, 1, False), (1, 2, False), (1, 2, True),
    ]  # fmt: skip
    assert {(report.images, report.steps) for report in reports} == {(2, 2)}


def test_sizes_are_native_unless_told(nano_ssd_1b: Components, tmp_path: Path) -> None:
    (native,) = draw(spec_with(steps=1), nano_ssd_1b, tmp_path / "1")
    (told,) = draw(spec_with(steps=1, width=96, height=32), nano_ssd_1b, tmp_path / "2")
    assert pixels(native).shape == (64, 64, 3)
    assert pixels(told).shape == (32, 96, 3)
    assert (told.width, told.height) == (96, 32)


def test_the_file_tells_how_it_was_made(nano_ssd_1b: Components, tmp_path: Path) -> None:
    lora = lora_file(nano_ssd_1b, tmp_path / "a.safetensors")
    spec = spec_with(
        prompt="a dög 犬", negative_prompt="blurry", guidance=3.5, scheduler="dpmpp_2m_karras"
    )
    (picture,) = draw(spec, nano_ssd_1b, tmp_path, (lora, 0.5))
    with Image.open(picture.path) as image:
        image.load()
        text = dict(image.info)
    assert text["parameters"] == (
        "a dög 犬\nNegative prompt: blurry\nSteps: 2, Sampler: DPM++ 2M, Schedule type: Karras, "
        "CFG scale: 3.5, Seed: 7, Size: 64x64, Model: nano-ssd-1b"
    )
    assert json.loads(text["stillroom"]) == {
        "prompt": "a dög 犬",
        "negative_prompt": "blurry",
        "seed": 7,
        "base": "nano-ssd-1b",
        "loras": [{"sha256": hashlib.sha256(lora.read_bytes()).hexdigest(), "weight": 0.5}],
        "steps": 2,
        "guidance": 3.5,
        "scheduler": "dpmpp_2m_karras",
        "width": 64,
        "height": 64,
        "precision": "float32",
    }


def test_every_scheduler_has_a_name_for_the_web_ui() -> None:
    from core.diffusion.sampling import SCHEDULERS

    assert engine.A1111_SAMPLERS.keys() == SCHEDULERS.keys()


def test_closing_stops_at_the_step_and_leaves_the_base_as_it_was(
    nano_ssd_1b: Components, tmp_path: Path
) -> None:
    lora, before = lora_file(nano_ssd_1b, tmp_path / "a.safetensors"), unet_output(nano_ssd_1b)
    calls: list[int] = []
    handle = nano_ssd_1b.unet.register_forward_hook(lambda *_: calls.append(1))
    reports = engine.generate(spec_with(steps=50), nano_ssd_1b, [(lora, 1.0)], tmp_path / "out")
    assert next(reports) == DenoiseReport(image=0, images=1, step=1, steps=50)
    reports.close()
    handle.remove()
    assert len(calls) == 1
    assert not (tmp_path / "out").exists()
    assert torch.equal(unet_output(nano_ssd_1b), before)


def test_a_lora_that_does_not_fit_is_refused_before_anything_is_drawn(
    nano_ssd_1b: Components, tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "sdxl.safetensors"
    module = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    save_file({f"{module}.lora_{half}.weight": torch.zeros(1, 1) for half in "AB"}, path)
    with pytest.raises(LayoutMismatch, match=r"mid_block\.attentions\.0"):
        next(iter(engine.generate(spec_with(), nano_ssd_1b, [(path, 1.0)], tmp_path)))


def test_running_out_of_memory_says_what_to_do(
    nano_ssd_1b: Components, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr("core.diffusion.latents.decode", no_room)
    with pytest.raises(OutOfMemory, match="smaller `width` and `height`"):
        draw(spec_with(steps=1), nano_ssd_1b, tmp_path)
