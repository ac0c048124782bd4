"""Pictures from requests: the same for the same, batches of strangers, each with its own end."""

import hashlib
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from core.diffusion import prompts, sampling
from core.diffusion.components import Components
from core.errors import ServiceError
from core.inference import adapters, engine, picture_file
from core.inference.engine import Engine
from core.inference.lora_shelf import LoraShelf
from core.inference.request import Failure, Lora, Picture, Progress, Request, Start
from core.specs import GenerateSpec
from tests.support.nano import NUMPY_COPY, lora_file, unet_output

pytestmark = NUMPY_COPY

Pixels = "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]"


def spec_with(**fields: object) -> GenerateSpec:
    """As admission fills it in."""
    return GenerateSpec.model_validate(
        {
            "base": "nano-ssd-1b",
            "prompt": "a dog",
            "steps": 2,
            "seed": 7,
            "width": 64,
            "height": 64,
            **fields,
        }
    )


def request_of(
    spec: GenerateSpec, out: Path, *loras: tuple[Path, float], start: Path | None = None
) -> Request:
    named = [Lora(path, sha256_of(path), weight) for path, weight in loras]
    return Request(spec, named, out, Start(start, sha256_of(start)) if start else None)


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def engine_of(components: Components, *, rows: int = 16) -> Engine:
    return Engine(components, LoraShelf(), lambda *_: rows)


def draw(
    spec: GenerateSpec,
    components: Components,
    out: Path,
    *loras: tuple[Path, float],
    start: Path | None = None,
) -> list[Picture]:
    told = engine_of(components).draw([request_of(spec, out, *loras, start=start)])
    return pictures_of(list(told), 0)


def pictures_of(told: list[Progress | Failure], number: int) -> list[Picture]:
    """Of one request, in the order of its pictures."""
    drawn = [
        each.picture
        for each in told
        if isinstance(each, Progress) and each.request == number and each.picture
    ]
    return sorted(drawn, key=lambda picture: picture.index)


def failures_of(told: list[Progress | Failure]) -> dict[int, Exception]:
    return {each.request: each.error for each in told if isinstance(each, Failure)}


def codes_of(told: list[Progress | Failure]) -> dict[int, str]:
    return {
        number: error.code if isinstance(error, ServiceError) else type(error).__name__
        for number, error in failures_of(told).items()
    }


def pixels(picture: Picture) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    with Image.open(picture.path) as image:
        return np.array(image)


def psnr_db(one: Picture, other: Picture) -> float:
    error = (pixels(one).astype(float) - pixels(other)) ** 2
    return float(10 * np.log10(255**2 / max(error.mean(), 1e-9)))


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
    assert psnr_db(pictures[3], alone) > 45


def test_progress_counts_the_steps_of_all_pictures(nano_ssd_1b: Components, tmp_path: Path) -> None:
    told = list(engine_of(nano_ssd_1b, rows=2).draw([request_of(spec_with(images=3), tmp_path)]))
    counted = [
        (each.step, each.at_once, each.picture is not None)
        for each in told
        if isinstance(each, Progress)
    ]
    assert counted == [
        (2, 2, False), (4, 2, False), (4, 2, True), (4, 2, True),
        (5, 1, False), (6, 1, False), (6, 1, True),
    ]  # fmt: skip
    assert {each.steps for each in told if isinstance(each, Progress)} == {6}


def test_sizes_are_as_told(nano_ssd_1b: Components, tmp_path: Path) -> None:
    (told,) = draw(spec_with(steps=1, width=96, height=32), nano_ssd_1b, tmp_path)
    assert pixels(told).shape == (32, 96, 3)


def strangers(components: Components, folder: Path) -> list[Request]:
    """Requests that may share a batch and differ in all else; and one that may not."""
    loras = [
        (lora_file(components, folder / "a.safetensors", rank=4, seed=1), 1.0),
        (lora_file(components, folder / "b.safetensors", rank=2, seed=2), -0.5),
    ]
    return [
        request_of(spec_with(prompt="a cat", seed=1), folder / "0"),
        request_of(spec_with(prompt="a red circle", seed=2, images=2), folder / "1", loras[0]),
        request_of(spec_with(negative_prompt="blurry", guidance=3.5), folder / "2", *loras),
        request_of(spec_with(prompt="word " * 90, seed=3), folder / "3", loras[1]),
        request_of(spec_with(steps=3), folder / "4", loras[0]),
    ]


def test_strangers_in_a_batch_get_what_each_would_get_alone(
    nano_ssd_1b: Components, tmp_path: Path
) -> None:
    requests = strangers(nano_ssd_1b, tmp_path)
    calls: list[int] = []
    handle = nano_ssd_1b.unet.register_forward_pre_hook(
        lambda module, inputs: calls.append(len(inputs[0]))
    )
    told = list(engine_of(nano_ssd_1b).draw(requests))
    handle.remove()
    assert calls == [8, 8, 2, 2, 2, 2, 2]
    for number, request in enumerate(requests):
        (*drawn,) = pictures_of(told, number)
        assert len(drawn) == request.count
        lone = Request(request.spec, request.loras, tmp_path / "alone" / str(number))
        alone = pictures_of(list(engine_of(nano_ssd_1b).draw([lone])), 0)
        assert min(map(psnr_db, drawn, alone)) > 45


def test_who_is_not_wanted_any_more_leaves_the_others_alone(
    nano_ssd_1b: Components, tmp_path: Path
) -> None:
    requests = strangers(nano_ssd_1b, tmp_path)
    told: list[Progress | Failure] = []
    drawing = engine_of(nano_ssd_1b).draw(requests, lambda number: number != 1 or len(told) < 3)
    for each in drawing:
        told.append(each)  # the lambda counts
    assert pictures_of(told, 1) == []
    assert failures_of(told) == {}
    assert all(len(pictures_of(told, number)) == 1 for number in (0, 2, 3, 4))


def test_a_batch_that_nobody_wants_ends_at_its_step(
    nano_ssd_1b: Components, tmp_path: Path
) -> None:
    calls: list[int] = []
    handle = nano_ssd_1b.unet.register_forward_hook(lambda *_: calls.append(1))
    told = list(
        engine_of(nano_ssd_1b).draw(
            [request_of(spec_with(steps=50), tmp_path)], lambda _: len(calls) < 2
        )
    )
    handle.remove()
    assert len(calls) == 2
    assert pictures_of(told, 0) == []


def test_closing_stops_at_the_step_and_leaves_the_base_as_it_was(
    nano_ssd_1b: Components, tmp_path: Path
) -> None:
    lora, before = lora_file(nano_ssd_1b, tmp_path / "a.safetensors"), unet_output(nano_ssd_1b)
    calls: list[int] = []
    handle = nano_ssd_1b.unet.register_forward_hook(lambda *_: calls.append(1))
    drawing = engine_of(nano_ssd_1b).draw(
        [request_of(spec_with(steps=50), tmp_path / "out", (lora, 1.0))]
    )
    assert next(drawing) == Progress(request=0, step=1, steps=50, at_once=1)
    drawing.close()
    handle.remove()
    assert len(calls) == 1
    assert not (tmp_path / "out").exists()
    assert torch.equal(unet_output(nano_ssd_1b), before)


def test_a_lora_that_does_not_fit_fails_its_own_request(
    nano_ssd_1b: Components, tmp_path: Path
) -> None:
    path = tmp_path / "sdxl.safetensors"
    module = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    save_file({f"{module}.lora_{half}.weight": torch.zeros(1, 1) for half in "AB"}, path)
    requests = [
        request_of(spec_with(), tmp_path / "0", (path, 1.0)),
        request_of(spec_with(), tmp_path / "1"),
    ]
    told = list(engine_of(nano_ssd_1b).draw(requests))
    assert told[0] == Failure(0, failures_of(told)[0]), "before anything is drawn"
    assert "mid_block.attentions.0" in str(failures_of(told)[0])
    assert len(pictures_of(told, 1)) == 1


def test_a_picture_that_is_no_number_fails_its_own_request(
    nano_ssd_1b: Components, tmp_path: Path
) -> None:
    path = tmp_path / "nan.safetensors"
    module = "unet.up_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    save_file(
        {f"{module}.lora_{half}.weight": torch.full(_SHAPES[half], torch.nan) for half in "AB"},
        path,
    )
    requests = [
        request_of(spec_with(images=2), tmp_path / "0", (path, 1.0)),
        request_of(spec_with(), tmp_path / "1"),
    ]
    told = list(engine_of(nano_ssd_1b).draw(requests))
    assert codes_of(told) == {0: "non_finite_picture"}
    (drawn,) = pictures_of(told, 1)
    (alone,) = draw(spec_with(), nano_ssd_1b, tmp_path / "alone")
    assert psnr_db(drawn, alone) > 45


def test_a_vae_that_overflows_is_a_failure_and_no_black_picture(
    nano_ssd_1b: Components, tmp_path: Path
) -> None:
    vae = deepcopy(nano_ssd_1b.vae)
    with torch.no_grad():
        vae.decoder.conv_out.weight.mul_(torch.inf)
    told = list(engine_of(replace(nano_ssd_1b, vae=vae)).draw([request_of(spec_with(), tmp_path)]))
    assert codes_of(told) == {0: "non_finite_picture"}
    assert "VAE made no number of a picture in float32" in str(failures_of(told)[0])
    assert not any(tmp_path.iterdir())


_SHAPES = {"A": (1, 64), "B": (64, 1)}


ON_A_CARD = torch.OutOfMemoryError()
ON_THE_CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:118] can't allocate memory: you tried")


def scarce(
    rows: int, real: Callable[..., object], full: Exception = ON_A_CARD
) -> Callable[..., object]:
    """A device that holds so many rows."""

    def denoise(components: Components, asked: list[object], **how: object) -> object:
        if len(asked) > rows:
            raise full
        return real(components, asked, **how)

    return denoise


@pytest.mark.parametrize("full", [ON_A_CARD, ON_THE_CPU])
@pytest.mark.parametrize("rows", [1, 2, 3])
def test_with_too_little_memory_fewer_are_drawn_at_once(
    rows: int,
    full: Exception,
    nano_ssd_1b: Components,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sampling, "denoise", scarce(rows, sampling.denoise, full))
    drawn = draw(spec_with(images=5), nano_ssd_1b, tmp_path)
    assert [picture.index for picture in drawn] == [0, 1, 2, 3, 4]


def test_running_out_of_memory_says_what_to_do(
    nano_ssd_1b: Components, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "denoise", scarce(0, sampling.denoise))
    told = list(
        engine_of(nano_ssd_1b).draw(
            [request_of(spec_with(images=2), tmp_path / str(number)) for number in range(2)]
        )
    )
    assert codes_of(told) == {0: "out_of_memory", 1: "out_of_memory"}
    assert "smaller `width` and `height`" in str(failures_of(told)[0])


def test_before_a_picture_is_given_up_all_else_lets_go(
    nano_ssd_1b: Components, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [0]
    drawer = engine_of(nano_ssd_1b)
    drawer.let_others_go = lambda: rows.append(1)

    def denoise(components: Components, asked: list[object], **how: object) -> object:
        return scarce(rows[-1], real)(components, asked, **how)

    real = sampling.denoise
    monkeypatch.setattr(sampling, "denoise", denoise)
    told = list(drawer.draw([request_of(spec_with(images=2), tmp_path)]))
    assert failures_of(told) == {}
    assert len(pictures_of(told, 0)) == 2
    assert rows == [0, 1]


@pytest.mark.parametrize("error", [ON_A_CARD, ValueError("a file that is none")])
def test_what_goes_wrong_before_a_step_goes_wrong_for_its_own_request(
    error: Exception, nano_ssd_1b: Components, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = adapters.compose

    def compose(stack: Sequence[object], model: object) -> object:
        if stack:
            raise error
        return real([], model)  # type: ignore[arg-type]

    monkeypatch.setattr(adapters, "compose", compose)
    lora = lora_file(nano_ssd_1b, tmp_path / "a.safetensors")
    told = list(
        engine_of(nano_ssd_1b).draw(
            [
                request_of(spec_with(), tmp_path / "1"),
                request_of(spec_with(), tmp_path / "2", (lora, 1.0)),
            ]
        )
    )
    assert failures_of(told) == {1: error}
    assert len(pictures_of(told, 0)) == 1


def test_a_picture_that_cannot_be_written_is_its_own_requests(
    nano_ssd_1b: Components, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = picture_file.write

    def write(path: Path, image: Image.Image, making: picture_file.Making) -> None:
        if making.prompt == "a cat":
            raise OSError("no room for cats")
        real(path, image, making)

    monkeypatch.setattr(picture_file, "write", write)
    requests = [
        request_of(spec_with(prompt=prompt), tmp_path / prompt) for prompt in ("a dog", "a cat")
    ]
    told = list(engine_of(nano_ssd_1b).draw(requests))
    assert codes_of(told) == {1: "OSError"}
    assert len(pictures_of(told, 0)) == 1


def test_rows_are_counted_with_the_largest_stack_where_stacks_differ(
    nano_ssd_1b: Components, tmp_path: Path
) -> None:
    counted = []

    def count_rows(_: GenerateSpec, __: int, lora_bytes: int) -> int:
        counted.append(lora_bytes)
        return 1

    small, large = (
        lora_file(nano_ssd_1b, tmp_path / f"{rank}.safetensors", rank=rank) for rank in (2, 8)
    )
    drawer = Engine(nano_ssd_1b, LoraShelf(), count_rows)
    one, other, plain = (
        request_of(spec_with(steps=1), tmp_path / name, *loras)
        for name, loras in (("1", [(small, 1.0)]), ("2", [(large, 1.0)]), ("3", []))
    )
    for together in ([one, one], [one, other, plain], [plain, plain]):
        list(drawer.draw(together))
    large_bytes = adapters.bytes_of(drawer.stack(other.loras))
    assert counted == [0, large_bytes, 0]


def test_rows_are_counted_with_the_chunks_of_their_texts(
    nano_ssd_1b: Components, tmp_path: Path
) -> None:
    counted = []

    def count_rows(_: GenerateSpec, chunks: int, __: int) -> int:
        counted.append(chunks)
        return 16

    drawer = Engine(nano_ssd_1b, LoraShelf(), count_rows)
    specs = [
        spec_with(steps=1),
        spec_with(steps=1, prompt="a BREAK b BREAK c"),
        spec_with(steps=1, negative_prompt="a BREAK b"),
    ]
    told = list(drawer.draw([request_of(spec, tmp_path) for spec in specs]))
    assert failures_of(told) == {}
    assert sorted(counted) == [1, 2, 3]


def test_a_prompt_of_too_many_chunks_fails_its_own_request(
    nano_ssd_1b: Components, tmp_path: Path
) -> None:
    specs = [spec_with(prompt="a BREAK " * 40), spec_with()]
    told = list(engine_of(nano_ssd_1b).draw([request_of(spec, tmp_path) for spec in specs]))
    assert "this one has 40 of them" in str(failures_of(told)[0])
    assert len(pictures_of(told, 1)) == 1


def test_a_prompt_is_encoded_once(
    nano_ssd_1b: Components, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    pair = prompts.encode_pair(nano_ssd_1b, "a dog", None)
    one_bytes = sum(each.text_1LD.nbytes + each.pooled_1P.nbytes for each in pair)
    monkeypatch.setattr(engine, "_TEXT_BYTES", 2 * one_bytes)
    drawer = engine_of(nano_ssd_1b)
    handle = nano_ssd_1b.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    for prompt in ("a dog", "a dog", "a cat"):
        list(drawer.draw([request_of(spec_with(prompt=prompt, steps=1), tmp_path)]))
    twice = len(calls)
    list(drawer.draw([request_of(spec_with(steps=1), tmp_path)]))
    assert len(calls) == twice
    for prompt in ("a bird", "a dog"):
        list(drawer.draw([request_of(spec_with(prompt=prompt, steps=1), tmp_path)]))
    assert len(calls) == twice + twice // 2, "the bird's; the dog was used after the cat"
    handle.remove()


def test_a_negative_prompt_that_nothing_is_steered_by_changes_nothing(
    nano_ssd_1b: Components, tmp_path: Path
) -> None:
    """However long it is."""
    drawer = engine_of(nano_ssd_1b)
    digests = []
    for number, negative in enumerate((None, "blue", "blue " * 90)):
        spec = spec_with(guidance=1.0, negative_prompt=negative)
        told = drawer.draw([request_of(spec, tmp_path / str(number))])
        (picture,) = pictures_of(list(told), 0)
        digests.append(pixels(picture).tobytes())
    assert len(set(digests)) == 1


def test_what_is_transparent_in_a_picture_to_begin_with_is_white(
    nano_ssd_1b: Components, tmp_path: Path
) -> None:
    """As in training: what lies under it, nobody has ever seen."""
    clear, white = tmp_path / "clear.png", tmp_path / "white.png"
    Image.new("RGBA", (64, 64), (200, 0, 0, 0)).save(clear)
    Image.new("RGB", (64, 64), "white").save(white)
    image = {"dataset": "dst_1", "image": "img_1", "strength": 0.3}
    spec = spec_with(steps=8, image=image)
    one, other = (
        draw(spec, nano_ssd_1b, tmp_path / path.stem, start=path)[0] for path in (clear, white)
    )
    assert np.array_equal(pixels(one), pixels(other))


def test_a_picture_to_begin_with_is_cropped_to_size_and_stays_recognisable(
    nano_ssd_1b: Components, tmp_path: Path
) -> None:
    start = tmp_path / "start.png"
    drawn = Image.new("RGB", (128, 64), "red")
    drawn.paste("blue", (32, 0, 96, 64))
    drawn.save(start)
    image = {"dataset": "dst_1", "image": "img_1", "strength": 0.3}
    (near,) = draw(spec_with(steps=8, image=image), nano_ssd_1b, tmp_path / "1", start=start)
    (far,) = draw(
        spec_with(steps=8, image=image | {"strength": 1.0}),
        nano_ssd_1b,
        tmp_path / "2",
        start=start,
    )
    blue = np.array([0, 0, 255])
    errors = [np.abs(pixels(picture) - blue).mean() for picture in (near, far)]
    assert errors[0] < 50
    assert errors[1] > 1.5 * errors[0]
