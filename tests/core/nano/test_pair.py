"""The nano pair: complete, and SDXL's in every respect but size."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionXLPipeline
from hypothesis import given, settings
from hypothesis import strategies as st

from core.bases import CATALOGUE
from core.diffusion import conditioning, latents
from core.diffusion.components import Components
from core.layouts import LAYOUTS, find_layout
from tests.support import pictures
from tests.support.nano import load


def contents(folder: Path) -> dict[Path, bytes]:
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("name", ["nano-sdxl", "nano-ssd-1b"])
def test_the_catalogue_describes_what_ships(name: str, nano_folders: Mapping[str, Path]) -> None:
    base, built = CATALOGUE[name], load(nano_folders[name])
    assert sum(weight.numel() for weight in built.unet.parameters()) == base.parameters
    assert tuple(built.unet.config.block_out_channels) == base.widths
    assert built.native_size == base.native_size
    assert find_layout(built.unet.state_dict()) == (base.layout,)
    assert built.scheduler.config.prediction_type == base.prediction_type


def test_the_pair_differs_in_the_unet_alone(nano_folders: Mapping[str, Path]) -> None:
    teacher, made = (contents(folder) for folder in nano_folders.values())
    assert {path.parts[0] for path in teacher.keys() ^ made.keys()} == {
        *("samples.png", "sheet.png", "job.json")
    }
    differ = {path.parts[0] for path in teacher.keys() & made.keys() if teacher[path] != made[path]}
    assert differ == {"unet", "README.md"}


@pytest.mark.parametrize("name", ["nano-sdxl", "nano-ssd-1b"])
@pytest.mark.parametrize("kind", [StableDiffusionXLPipeline, DiffusionPipeline])
def test_diffusers_loads_it(
    name: str, kind: type[DiffusionPipeline], nano_folders: Mapping[str, Path]
) -> None:
    pipeline = kind.from_pretrained(nano_folders[name])
    assert isinstance(pipeline, StableDiffusionXLPipeline)
    assert pipeline.config.force_zeros_for_empty_prompt is True
    (layout,) = find_layout(pipeline.unet.state_dict())
    assert f"nano-{layout.id}" == name
    assert layout is LAYOUTS[layout.id]


def test_sizes(nano_ssd_1b: Components) -> None:
    assert nano_ssd_1b.native_size == 64
    assert nano_ssd_1b.latent_factor == 4
    assert nano_ssd_1b.unet.config.sample_size == 16


def test_every_group_norm_has_four_channels_a_group_or_more(nano_ssd_1b: Components) -> None:
    norms = [
        module
        for part in (nano_ssd_1b.unet, nano_ssd_1b.vae)
        for module in part.modules()
        if isinstance(module, torch.nn.GroupNorm)
    ]
    assert norms
    assert min(norm.num_channels // norm.num_groups for norm in norms) >= 4


def test_latents_are_of_unit_size_and_tell_pictures_apart(nano_ssd_1b: Components) -> None:
    pixels = torch.stack([latents.to_pixels(pictures.draw(number)) for number in range(4)])
    moments = latents.encode(nano_ssd_1b.vae, pixels)
    assert 0.5 < moments.mean_BCHW.std().item() < 2
    assert moments.std_BCHW.max().item() < 0.02
    assert moments.mean_BCHW.std(dim=0).mean().item() > 0.1


def test_tokenizers_pad_as_those_of_sdxl(nano_ssd_1b: Components) -> None:
    assert nano_ssd_1b.tokenizer.pad_token == nano_ssd_1b.tokenizer.eos_token
    assert nano_ssd_1b.tokenizer_2.pad_token == "!"
    for encoder in (nano_ssd_1b.text_encoder, nano_ssd_1b.text_encoder_2):
        assert encoder.config.eos_token_id == nano_ssd_1b.tokenizer.eos_token_id != 2
        assert encoder.config.num_hidden_layers >= 3


@settings(deadline=None)  # the first call of all is slow
@given(text=st.text(max_size=200))
def test_any_text_tokenizes(text: str, nano_ssd_1b: Components) -> None:
    for tokenizer in (nano_ssd_1b.tokenizer, nano_ssd_1b.tokenizer_2):
        ids = tokenizer(text, padding="max_length", max_length=77, truncation=True).input_ids
        assert len(ids) == 77
        assert ids[0] == tokenizer.bos_token_id
        end = ids.index(tokenizer.eos_token_id)
        # The end token is the unknown token too: were a letter unknown, it would end there.
        assert set(ids[end + 1 :]) <= {tokenizer.pad_token_id}


def test_two_prompts_are_two_things_to_the_unet(nano_ssd_1b: Components) -> None:
    dog = conditioning.encode_prompt(nano_ssd_1b, "a photo of sks dog")
    cat = conditioning.encode_prompt(nano_ssd_1b, "a photo of sks cat")
    assert (dog.text_1LD - cat.text_1LD).abs().max() > 0.1
    assert (dog.pooled_1P - cat.pooled_1P).abs().max() > 0.1
