"""What one file of the original layout is, told from its header; and what is no base."""

from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from core import bases
from core.adding import checkpoint, shapes
from core.adding.family import NANO, REAL
from core.adding.found import Found
from core.adding.intake import examine
from core.config import Settings
from core.errors import NotABase
from core.layouts import LAYOUTS, NANO_WIDTHS, REAL_WIDTHS, SSD_1B, Layout
from tests.support import originals

UNET, VAE = "model.diffusion_model.", "first_stage_model."
TEXT, TEXT_2 = "conditioner.embedders.0.transformer.text_model.", "conditioner.embedders.1.model."

Told = dict[str, tuple[str, tuple[int, ...]]]
Change = Callable[[Told], object]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("nano") / "nano.safetensors"
    return originals.write_nano(path, bases.NANO_SSD_1B, SSD_1B)


@pytest.fixture(scope="module")
def told(file: Path) -> Told:
    return originals.told(file)


def read(told: Told, folder: Path, **metadata: str) -> Found:
    return checkpoint.examine(originals.write_header(folder / "it.safetensors", told, **metadata))


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_at_real_size_every_tensor_has_its_place(layout: Layout, tmp_path: Path) -> None:
    told = originals.real_size(layout)
    found = read(told, tmp_path)
    assert (found.shape.layout, found.shape.widths) == (layout, REAL_WIDTHS)
    assert (found.shape.native_size, found.family) == (1024, REAL)
    assert (found.tokenizers, found.vae_takes_halves) == (None, False)
    pieces = {
        part: {key: each.shape for key, each in of.items()} for part, of in found.parts.items()
    }
    assert pieces == {
        "unet": shapes.unet(REAL.config("unet"), layout),
        "vae": shapes.vae(REAL.config("vae")),
        **{
            name: shapes.text_encoder(REAL.config(name))
            for name in ("text_encoder", "text_encoder_2")
        },
    }
    # each byte of the file is in one piece
    spans = sorted((each.begin, each.end) for of in found.parts.values() for each in of.values())
    assert all(end == begin for (_, end), (begin, _) in pairwise(spans))
    assert spans[-1][1] == (tmp_path / "it.safetensors").stat().st_size


def test_the_nano_pair_is_known_by_its_widths(file: Path) -> None:
    found = checkpoint.examine(file)
    assert (found.shape.layout, found.shape.widths) == (SSD_1B, NANO_WIDTHS)
    assert (found.shape.native_size, found.family) == (64, NANO)
    assert found.vae_takes_halves


SAYS = {
    "nothing": ({}, {}, "epsilon", False),
    "epsilon": ({}, {"modelspec.prediction_type": "epsilon"}, "epsilon", False),
    "v": ({}, {"modelspec.prediction_type": "v"}, "v_prediction", False),
    "ComfyUI's v": ({}, {"modelspec.predict_key": "v"}, "v_prediction", False),
    "a key": ({"v_pred": ("F32", (0,))}, {}, "v_prediction", False),
    "both keys": (
        {"v_pred": ("F32", (0,)), "ztsnr": ("F32", (0,))},
        {"modelspec.prediction_type": "epsilon"},  # as the file it was merged from said
        "v_prediction",
        True,
    ),
}


@pytest.mark.parametrize(("keys", "metadata", "predicts", "zero"), SAYS.values(), ids=SAYS.keys())
def test_what_it_predicts(
    keys: Told, metadata: Mapping[str, str], predicts: str, zero: bool, told: Told, tmp_path: Path
) -> None:
    scheduler = read(told | keys, tmp_path, **metadata).scheduler
    assert (scheduler["prediction_type"], scheduler["rescale_betas_zero_snr"]) == (predicts, zero)
    assert scheduler["timestep_spacing"] == ("trailing" if zero else "leading")


def test_an_unknown_prediction_is_refused(told: Told, tmp_path: Path) -> None:
    with pytest.raises(NotABase, match="predicts 'x0'"):
        read(told, tmp_path, **{"modelspec.prediction_type": "x0"})


def test_its_licence_is_what_it_says(told: Told, tmp_path: Path) -> None:
    assert read(told, tmp_path, **{"modelspec.license": "fair"}).licence == "fair"
    assert read(told, tmp_path).licence is None


def test_harmless_keys_are_passed_over(told: Told, tmp_path: Path) -> None:
    more: Told = {
        "denoiser.sigmas": ("F32", (1000,)),
        "alphas_cumprod": ("F32", (1000,)),
        "model_ema.decay": ("F32", ()),
        "model_ema.diffusion_modelinput_blocks00weight": ("F32", (3,)),
        f"{TEXT}embeddings.position_ids": ("I64", (1, 77)),
        f"{TEXT_2}logit_scale": ("F32", ()),
    }
    assert read(told | more, tmp_path).parts.keys() == {
        "unet",
        "vae",
        "text_encoder",
        "text_encoder_2",
    }


def test_a_linear_layer_of_the_vae_may_be_one(told: Told, tmp_path: Path) -> None:
    key = f"{VAE}decoder.mid.attn_1.q.weight"
    dtype, shape = told[key]
    assert shape[2:] == (1, 1)
    assert read(told | {key: (dtype, shape[:2])}, tmp_path).parts["vae"]


def without(prefix: str) -> Change:
    def change(told: Told) -> None:
        for key in [key for key in told if key.startswith(prefix)]:
            del told[key]

    return change


def having(key: str, shape: tuple[int, ...] = (1,), dtype: str = "F16") -> Change:
    return lambda told: told.update({key: (dtype, shape)})


FIRST = f"{UNET}input_blocks.0.0.weight"
BLOCK = f"{UNET}input_blocks.8.1.transformer_blocks."
REFUSED: dict[str, tuple[Change, str]] = {
    "no VAE": (without(VAE), r"lacks the vae \(`first_stage_model"),
    "no text encoder": (without(TEXT), "lacks the text_encoder "),
    "no second text encoder": (without(TEXT_2), "lacks the text_encoder_2 "),
    "no UNet": (without(UNET), "lacks the unet "),
    "one tensor missing": (without(f"{UNET}out.2.bias"), r"lacks `model\.diffusion_model\.out\.2"),
    "one block missing": (without(f"{BLOCK}3."), r"33 transformer blocks .* laid out otherwise"),
    "one block more": (
        having(f"{UNET}middle_block.1.transformer_blocks.0.norm1.weight"),
        "35 transformer blocks",
    ),
    "an unknown key": (having("lambda.scale"), r"holds `lambda\.scale`, of which nothing"),
    "unknown keys": (
        lambda told: told.update({f"odd.{at}": ("F16", (1,)) for at in range(3)}),
        r"holds `odd\.0` and 2 more",
    ),
    "LCM": (having(f"{UNET}time_embed.cond_proj.weight"), "time_embed.cond_proj"),
    "another shape": (having(f"{UNET}out.2.bias", (5,)), r"out\.2\.bias` .* \(5,\); .* \(4,\)"),
    "other widths": (having(FIRST, (16, 4, 3, 3)), r"widths \(16, 48, 64\)"),
    "inpainting": (having(FIRST, (32, 9, 3, 3)), "inpainting"),
    "editing": (having(FIRST, (32, 8, 3, 3)), "8 channels"),
    "quantised": (having(f"{UNET}out.2.bias", (4,), "F8_E4M3"), "is in F8_E4M3.*half precision"),
    "of integers": (having(f"{UNET}out.2.bias", (4,), "I64"), "is in I64"),
    "SD 1.5": (having("cond_stage_model.transformer.text_model.x"), "is Stable Diffusion 1:"),
    "SD 2": (having("cond_stage_model.model.x"), "is Stable Diffusion 2:"),
    "the refiner": (having("conditioner.embedders.0.model.x"), "is SDXL's refiner"),
    "SD 3": (having("model.diffusion_model.joint_blocks.0.x"), "is Stable Diffusion 3"),
    "Flux": (having("double_blocks.0.x"), "is Flux"),
    "a ControlNet": (having("control_model.x"), "is a ControlNet"),
    "Playground": (having("edm_mean", (1, 4, 1, 1)), "is Playground 2.5"),
    "CosXL": (having("edm_vpred.sigma_max", ()), "CosXL"),
    "a LoRA": (having("lora_unet_input_blocks_4_1_proj_in.lora_down.weight"), "is a LoRA"),
    "one part of diffusers'": (having("conv_in.weight"), "bring the whole folder"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_base_is_refused_by_name(
    change: Change, said: str, told: Told, tmp_path: Path
) -> None:
    changed = dict(told)
    change(changed)
    with pytest.raises(NotABase, match=said) as refused:
        read(changed, tmp_path)
    assert refused.value.detail.endswith(".")


def test_a_header_that_cannot_be_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "it.safetensors"
    path.write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00[1,2,3] ")
    with pytest.raises(NotABase, match=r"^it\.safetensors is no .*: its header is no JSON object"):
        checkpoint.examine(path)


FORMATS = {
    "zip": ("it.safetensors", b"PK\x03\x04", "is a pickle"),
    "pickle": ("it.safetensors", b"\x80\x02}q", "is a pickle"),
    "ckpt": ("it.ckpt", b"{}", "is a pickle"),
    "pt": ("it.pt", b"", "is a pickle"),
    "bin": ("it.bin", b"", "is a pickle"),
    "gguf": ("it.safetensors", b"GGUF", "is a GGUF file"),
}


@pytest.mark.parametrize(("name", "content", "said"), FORMATS.values(), ids=FORMATS.keys())
def test_other_formats_are_refused_by_name(
    name: str, content: bytes, said: str, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(NotABase, match=f"{name} {said}.*safetensors"):
        examine("it", tmp_path / name, settings, print, velocity=False, licence=None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_precisions_stay_what_they_are(
    dtype: torch.dtype, file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "it.safetensors"
    save_file({key: tensor.to(dtype) for key, tensor in load_file(file).items()}, path)
    found = checkpoint.examine(path)
    named = {torch.float32: "F32", torch.bfloat16: "BF16"}[dtype]
    assert {each.dtype for of in found.parts.values() for each in of.values()} == {named}
