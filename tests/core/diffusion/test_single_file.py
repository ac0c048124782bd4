"""A pipeline as one file, and what diffusers makes of it."""

import hashlib
import shutil
import socket
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from core import bases, originals
from core.diffusion import single_file
from core.diffusion.components import Components
from core.errors import LayoutMismatch
from core.layouts import LAYOUTS, SDXL, SSD_1B, Layout
from core.nano import shape
from tests.support import real_size
from tests.support.nano import NUMPY_COPY, load

ORIGINAL = {
    "time_embedding.linear_2.weight": "time_embed.2.weight",
    "add_embedding.linear_1.bias": "label_emb.0.0.bias",
    "conv_in.weight": "input_blocks.0.0.weight",
    "conv_norm_out.bias": "out.0.bias",
    "conv_out.weight": "out.2.weight",
    "down_blocks.0.resnets.1.time_emb_proj.weight": "input_blocks.2.0.emb_layers.1.weight",
    "down_blocks.0.downsamplers.0.conv.bias": "input_blocks.3.0.op.bias",
    "down_blocks.1.resnets.0.conv_shortcut.weight": "input_blocks.4.0.skip_connection.weight",
    "down_blocks.2.attentions.1.transformer_blocks.9.ff.net.0.proj.weight":
        "input_blocks.8.1.transformer_blocks.9.ff.net.0.proj.weight",
    "mid_block.resnets.0.norm1.weight": "middle_block.0.in_layers.0.weight",
    "mid_block.attentions.0.proj_in.weight": "middle_block.1.proj_in.weight",
    "mid_block.resnets.1.conv2.bias": "middle_block.2.out_layers.3.bias",
    "up_blocks.0.upsamplers.0.conv.weight": "output_blocks.2.2.conv.weight",
    "up_blocks.1.attentions.0.transformer_blocks.1.attn2.to_out.0.bias":
        "output_blocks.3.1.transformer_blocks.1.attn2.to_out.0.bias",
    "up_blocks.2.resnets.2.norm2.weight": "output_blocks.8.0.out_layers.0.weight",
}  # fmt: skip
"""From the block tables of Stability's code: SDXL has nine blocks down, one between, nine up."""

KEYS = {"sdxl": 1680, "ssd-1b": 944, "vega": 564}

SHARED_PARTS = ("vae", "text_encoder", "text_encoder_2")
"""Those that come from the base."""


@dataclass(frozen=True)
class Written:
    """``folder`` has the configurations that go with the file, and no weights."""

    path: Path
    folder: Path
    unet: Mapping[str, Tensor]
    layout: Layout


@pytest.fixture(scope="module")
def base() -> Components:
    return load(bases.NANO_SDXL)


@pytest.fixture(scope="module")
def student() -> Mapping[str, Tensor]:
    state: Mapping[str, Tensor] = shape.unet(SSD_1B).state_dict()
    return state


@pytest.fixture(scope="module", params=LAYOUTS)
def written(
    request: pytest.FixtureRequest, base: Components, tmp_path_factory: pytest.TempPathFactory
) -> Written:
    layout = LAYOUTS[request.param]
    folder = tmp_path_factory.mktemp("single") / "pipeline"
    shutil.copytree(base.folder, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    unet = shape.unet(layout)
    unet.save_config(folder / "unet")
    state = unet.state_dict()
    path = folder.with_name(single_file.file_name(layout))
    single_file.write(path, state, base, layout=layout, side=64)
    return Written(path, folder, state, layout)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*asked: object) -> None:
        raise AssertionError(f"the network was asked for {asked}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("no_network")
def test_diffusers_reads_the_unet(written: Written) -> None:
    unet = UNet2DConditionModel.from_single_file(
        str(written.path),
        config=str(written.folder),
        subfolder="unet",
        torch_dtype=torch.float16,
        local_files_only=True,
    )
    check_halves(unet.state_dict(), written.unet)


@NUMPY_COPY
@pytest.mark.usefixtures("no_network")
def test_diffusers_reads_the_pipeline(written: Written, base: Components) -> None:
    pipeline = StableDiffusionXLPipeline.from_single_file(
        str(written.path),
        config=str(written.folder),
        torch_dtype=torch.float16,
        local_files_only=True,
    )
    check_halves(pipeline.unet.state_dict(), written.unet)
    for part in SHARED_PARTS:
        check_halves(getattr(pipeline, part).state_dict(), getattr(base, part).state_dict())


@pytest.mark.parametrize(("ours", "theirs"), ORIGINAL.items())
def test_keys(ours: str, theirs: str) -> None:
    assert originals.UNET.of(ours) == theirs


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_at_real_size_diffusers_maps_every_unet_key_back(layout: Layout) -> None:
    with torch.device("meta"):
        unet = real_size.unet(layout)
    keys = list(unet.state_dict())
    renamed = {originals.UNET_PREFIX + originals.UNET.of(key): key for key in keys}
    assert len(renamed) == len(keys) == KEYS[layout.id]
    assert convert_ldm_unet_checkpoint(renamed, unet.config) == {key: key for key in keys}


def test_at_real_size_diffusers_maps_the_other_parts_back() -> None:
    with torch.device("meta"):
        vae, (first, second) = real_size.vae(), real_size.text_encoders()
    parts: Any = SimpleNamespace(vae=vae, text_encoder=first, text_encoder_2=second)
    file = single_file.arrange({}, parts)
    assert shapes(convert_ldm_vae_checkpoint(file, vae.config)) == shapes(vae.state_dict())
    back = convert_open_clip_checkpoint(second, file, "conditioner.embedders.1.model.")
    assert shapes(back) == shapes(second.state_dict())
    prefix = "conditioner.embedders.0.transformer.text_model."
    own = {key.removeprefix("text_model."): part for key, part in first.state_dict().items()}
    kept = {key: part for key, part in file.items() if key.startswith(prefix)}
    assert shapes(kept) == {prefix + key: shape for key, shape in shapes(own).items()}
    assert file["first_stage_model.encoder.mid.attn_1.q.weight"].shape == (512, 512, 1, 1)


def test_what_other_programs_look_for_is_in_the_header(written: Written) -> None:
    short = written.layout.id.replace("-", "")
    assert written.path.name == f"{short}.safetensors"
    with safe_open(written.path, "pt") as file:
        metadata = file.metadata()
    content = written.path.read_bytes()
    header_bytes = int.from_bytes(content[:8], "little")
    digest = hashlib.sha256(content[8 + header_bytes :]).hexdigest()
    assert metadata == {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "stable-diffusion-xl-v1-base",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.title": f"stillroom-{short}",
        "modelspec.resolution": "64x64",
        "modelspec.prediction_type": "epsilon",
        "modelspec.hash_sha256": f"0x{digest}",
        "stillroom.layout": written.layout.id,
    }


def test_the_middle_of_the_small_ones_is_one_resnet(written: Written) -> None:
    middle = originals.UNET_PREFIX + "middle_block."
    places = {key[len(middle)] for key in load_file(written.path) if key.startswith(middle)}
    assert places == ({"0", "1", "2"} if written.layout is SDXL else {"0"})


def test_the_same_tensors_are_the_same_bytes(
    written: Written, base: Components, tmp_path: Path
) -> None:
    again, turned = tmp_path / "again.safetensors", dict(sorted(written.unet.items()))
    single_file.write(again, turned, base, layout=written.layout, side=64)
    assert again.read_bytes() == written.path.read_bytes()


def test_any_floating_dtype_becomes_halves(
    student: Mapping[str, Tensor], base: Components, tmp_path: Path
) -> None:
    path = tmp_path / "file.safetensors"
    trained = {key: tensor.bfloat16() for key, tensor in student.items()}
    single_file.write(path, trained, base, layout=SSD_1B, side=64)
    file = load_file(path)
    assert {tensor.dtype for tensor in file.values()} == {torch.float16}
    for key, tensor in trained.items():
        there = file[originals.UNET_PREFIX + originals.UNET.of(key)]
        assert torch.equal(there, tensor.half())


@NUMPY_COPY
def test_what_predicts_the_velocity_says_so(
    student: Mapping[str, Tensor], base: Components, tmp_path: Path
) -> None:
    scheduler = EulerDiscreteScheduler.from_config(
        base.scheduler.config, prediction_type="v_prediction", rescale_betas_zero_snr=True
    )
    path = tmp_path / "file.safetensors"
    velocity = replace(base, scheduler=scheduler)
    single_file.write(path, student, velocity, layout=SSD_1B, side=64)
    with safe_open(path, "pt") as file:
        assert file.metadata()["modelspec.prediction_type"] == "v"
        assert {"v_pred", "ztsnr"} <= set(file.keys())


UNFIT = {
    "unknown": ({"down_blocks.7.conv.weight": torch.ones(1)}, "down_blocks.7.conv.weight"),
    "wrong shape": ({"conv_in.bias": torch.ones(5)}, r"conv_in.bias.*\(5,\).*\(32,\)"),
}


@pytest.mark.parametrize(("tensors", "said"), UNFIT.values(), ids=UNFIT.keys())
def test_tensors_that_do_not_fit_are_refused_by_name(
    tensors: Mapping[str, Tensor],
    said: str,
    student: Mapping[str, Tensor],
    base: Components,
    tmp_path: Path,
) -> None:
    path = tmp_path / "file.safetensors"
    with pytest.raises(LayoutMismatch, match=said):
        single_file.write(path, {**student, **tensors}, base, layout=SSD_1B, side=64)
    assert not list(tmp_path.iterdir())


def test_a_missing_tensor_is_named(
    student: Mapping[str, Tensor], base: Components, tmp_path: Path
) -> None:
    cut = {key: tensor for key, tensor in student.items() if key != "conv_out.bias"}
    with pytest.raises(LayoutMismatch, match=r"lacks `conv_out\.bias`"):
        single_file.write(tmp_path / "file", cut, base, layout=SSD_1B, side=64)
    with pytest.raises(LayoutMismatch, match=r"lacks `down_blocks\.2\..*transformer_blocks\.4\."):
        single_file.write(tmp_path / "file", student, base, layout=SDXL, side=64)


@pytest.mark.parametrize("part", SHARED_PARTS)
def test_a_strange_key_of_the_base_is_refused_by_name(
    part: str, student: Mapping[str, Tensor], base: Components
) -> None:
    strange = deepcopy(getattr(base, part))
    strange.register_parameter("strange", torch.nn.Parameter(torch.ones(1)))
    with pytest.raises(LayoutMismatch, match="`strange`"):
        single_file.arrange(student, replace(base, **{part: strange}))


def check_halves(found: Mapping[str, Tensor], source: Mapping[str, Tensor]) -> None:
    assert found.keys() == source.keys()
    for key, tensor in source.items():
        assert torch.equal(found[key], tensor.half()), key


def shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {key: tensor.shape for key, tensor in tensors.items()}
