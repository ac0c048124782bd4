"""kohya's form of a LoRA: its keys, its alpha, and what diffusers makes of it."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from core.diffusion import adapter, kohya_file, lora, lora_file
from core.diffusion.components import Components
from core.diffusion.lora import Lora
from core.layouts import LAYOUTS, SDXL, SSD_1B
from core.specs import LoraSpec
from core.training import export
from tests.support.nano import unet_output


@pytest.fixture
def trained(nano_ssd_1b: Components) -> Lora:
    """As after training, with an alpha that is not the rank."""
    made = Lora(nano_ssd_1b.unet, LoraSpec(rank=4, alpha=6, targets="transformer"), seed=0)
    with torch.no_grad():
        for b_OR in made.b:
            b_OR.normal_(0, 0.05, generator=torch.Generator().manual_seed(1))
    return made


@pytest.fixture
def path(trained: Lora, tmp_path: Path) -> Path:
    path = tmp_path / kohya_file.file_name(SSD_1B)
    kohya_file.write(
        path, trained.pairs(), rank=4, alpha=6, layout=SSD_1B, side=1024, trigger="sks dog"
    )
    return path


def test_diffusers_loads_it_to_the_trained_output(
    trained: Lora, path: Path, nano_ssd_1b: Components
) -> None:
    bare = unet_output(nano_ssd_1b)
    with trained.attached(nano_ssd_1b.unet):
        expected = unet_output(nano_ssd_1b)
    pipeline = nano_ssd_1b.pipeline()
    pipeline.load_lora_weights(path.parent, weight_name=path.name)
    loaded = unet_output(nano_ssd_1b)
    pipeline.unload_lora_weights()
    torch.testing.assert_close(loaded, expected)
    assert not torch.allclose(loaded, bare, atol=1e-3)
    lora.check_export(trained, [path], nano_ssd_1b)


def test_ours_reads_both_forms_alike(trained: Lora, path: Path, tmp_path: Path) -> None:
    export.save_for_diffusers(trained, tmp_path / lora_file.FILE_NAME)
    ours, theirs = adapter.read(tmp_path / lora_file.FILE_NAME).unet, adapter.read(path).unet
    assert ours.keys() == theirs.keys()
    for module, pair in ours.items():
        assert torch.equal(pair.a_RI, theirs[module].a_RI)
        torch.testing.assert_close(pair.b_OR, theirs[module].b_OR)


def test_what_other_programs_look_for_is_in_the_header(path: Path) -> None:
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert path.name == "lora_kohya_ssd1b.safetensors"
    assert metadata["modelspec.title"] == "stillroom-ssd1b-sks dog"
    assert metadata["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"
    assert metadata["modelspec.trigger_phrase"] == "sks dog"
    assert metadata["modelspec.resolution"] == "1024x1024"
    assert (metadata["ss_network_dim"], metadata["ss_network_alpha"]) == ("4", "6")
    assert metadata["ss_network_module"] == "networks.lora"
    assert metadata["stillroom.layout"] == "ssd-1b"
    content = path.read_bytes()
    header_bytes = int.from_bytes(content[:8], "little")
    digest = hashlib.sha256(content[8 + header_bytes :]).hexdigest()
    assert metadata["modelspec.hash_sha256"] == f"0x{digest}"
    assert metadata["sshs_model_hash"] == digest
    json.loads(content[8 : 8 + header_bytes])


def test_each_module_has_an_alpha_of_its_own(path: Path) -> None:
    tensors = load_file(path)
    alphas = {key: tensor for key, tensor in tensors.items() if key.endswith(".alpha")}
    assert len(alphas) == len(SSD_1B.linear_modules()) == len(tensors) // 3
    assert {tensor.item() for tensor in alphas.values()} == {6.0}


def test_all_layouts_are_parts_of_sdxl() -> None:
    every = set(SDXL.linear_modules())
    assert all(set(layout.linear_modules()) <= every for layout in LAYOUTS.values())
