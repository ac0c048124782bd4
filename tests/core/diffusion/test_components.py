"""Loading a base from a folder, and nothing else."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from core.diffusion import components
from core.diffusion.components import Components
from core.errors import BaseNotAvailable
from tests.support import nano

CPU = torch.device("cpu")


def test_weights_are_frozen_in_eval_mode_and_of_the_dtype(nano_folders: Mapping[str, Path]) -> None:
    loaded = components.load(nano_folders["nano-ssd-1b"], device=CPU, dtype=torch.bfloat16)
    for part in (loaded.unet, loaded.vae, loaded.text_encoder, loaded.text_encoder_2):
        assert not part.training
        assert {parameter.dtype for parameter in part.parameters()} == {torch.bfloat16}
        assert not any(parameter.requires_grad for parameter in part.parameters())


def test_the_pipeline_is_made_of_the_same_modules(nano_ssd_1b: Components) -> None:
    pipeline = nano_ssd_1b.pipeline()
    assert pipeline.unet is nano_ssd_1b.unet
    assert pipeline.vae is nano_ssd_1b.vae
    assert pipeline.text_encoder_2 is nano_ssd_1b.text_encoder_2


def test_half_precision_files_are_used_where_there_are_no_others(
    nano_ssd_1b: Components, tmp_path: Path
) -> None:
    nano_ssd_1b.pipeline().save_pretrained(tmp_path, variant="fp16")
    loaded = nano.load(tmp_path)
    # last bits may differ: weights that need no cast stay in the file, aligned as they lie there
    torch.testing.assert_close(nano.unet_output(loaded), nano.unet_output(nano_ssd_1b))


def test_unconditional_is_what_the_model_index_says(
    nano_folders: Mapping[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "base"
    shutil.copytree(nano_folders["nano-ssd-1b"], folder)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(
        json.dumps({**index, "force_zeros_for_empty_prompt": False})
    )
    assert nano.load(folder).zero_unconditional is False
    assert nano.load(folder).pipeline().config.force_zeros_for_empty_prompt is False


@pytest.mark.parametrize(
    "missing", ["model_index.json", "unet/diffusion_pytorch_model.safetensors"]
)
def test_a_missing_part_is_named(
    missing: str, nano_folders: Mapping[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "base"
    shutil.copytree(nano_folders["nano-ssd-1b"], folder)
    (folder / missing).unlink()
    with pytest.raises(BaseNotAvailable, match=missing.split("/")[0]):
        nano.load(folder)
