"""A pipeline folder of diffusers' as a base, and what of such folders is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from core import bases
from core.adding import folder
from core.adding.family import NANO
from core.errors import NotABase
from core.layouts import NANO_WIDTHS, SSD_1B
from tests.support import originals

SCHEDULER = "scheduler/scheduler_config.json"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return shutil.copytree(bases.NANO_SSD_1B, tmp_path / "mine")


def change(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_what_it_is(mine: Path) -> None:
    found = folder.examine(mine)
    assert (found.shape.layout, found.shape.widths) == (SSD_1B, NANO_WIDTHS)
    assert (found.shape.native_size, found.family) == (64, NANO)
    assert (found.tokenizers, found.vae_takes_halves) == (mine, True)


def test_what_is_its_own_is_kept(mine: Path) -> None:
    change(mine / SCHEDULER, prediction_type="v_prediction", rescale_betas_zero_snr=True)
    change(mine / "vae/config.json", scaling_factor=0.5, force_upcast=True)
    change(mine / "unet/config.json", sample_size=32, block_out_channels=[1, 2, 3])
    change(mine / "model_index.json", force_zeros_for_empty_prompt=False)
    found = folder.examine(mine)
    assert found.scheduler["prediction_type"] == "v_prediction"
    assert found.scheduler["rescale_betas_zero_snr"]
    assert (found.shape.native_size, found.vae_takes_halves) == (128, False)
    assert found.configs["vae"]["scaling_factor"] == 0.5
    assert found.configs["unet"]["block_out_channels"] == list(NANO_WIDTHS)  # the weights'
    assert found.index["force_zeros_for_empty_prompt"] is False


def test_halves_come_first(mine: Path) -> None:
    weights = mine / "unet" / "diffusion_pytorch_model.safetensors"
    half = weights.with_name("diffusion_pytorch_model.fp16.safetensors")
    weights.rename(half)
    weights.write_bytes(b"in full precision")
    assert {piece.path for piece in folder.examine(mine).parts["unet"].values()} == {half}


def test_older_and_newer_names_are_ours(mine: Path) -> None:
    before = folder.examine(mine)
    text, vae = (
        mine / "text_encoder/model.safetensors",
        mine / "vae" / "diffusion_pytorch_model.safetensors",
    )
    save_file({f"text_model.{key}": each for key, each in load_file(text).items()}, text)
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    renamed = {}
    for key, each in load_file(vae).items():
        for new, name in old.items():
            key = key.replace(new, name)
        renamed[key] = each
    assert renamed.keys() != load_file(vae).keys()
    save_file(renamed, vae)
    found = folder.examine(mine)
    assert {part: each.keys() for part, each in found.parts.items()} == {
        part: each.keys() for part, each in before.parts.items()
    }


def drop(name: str) -> Callable[[Path], object]:
    return lambda mine: (mine / name).unlink()


def say(name: str, **fields: Any) -> Callable[[Path], object]:
    return lambda mine: change(mine / name, **fields)


def write(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda mine: (mine / name).write_bytes(content)


def only(part: str, name: str) -> Callable[[Path], object]:
    """A part whose weights are in another file."""

    def swap(mine: Path) -> None:
        for path in (mine / part).glob("*.safetensors"):
            path.unlink()
        (mine / part / name).write_bytes(b"")

    return swap


def unet(**changes: tuple[int, ...] | None) -> Callable[[Path], object]:
    def swap(mine: Path) -> None:
        path = mine / "unet" / "diffusion_pytorch_model.safetensors"
        told = originals.told(path)
        for key, shape in changes.items():
            told.pop(key.replace("__", "."), None)
            if shape:
                told[key.replace("__", ".")] = ("F16", shape)
        originals.write_header(path, told)

    return swap


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no index": (drop("model_index.json"), r"^mine lacks model_index\.json"),
    "an index of text": (write("model_index.json", b"x"), "no JSON"),
    "an index that is a list": (write("model_index.json", b"[]"), "no table"),
    "SD 1.5": (say("model_index.json", _class_name="StableDiffusionPipeline"), "is a StableDiff"),
    "no scheduler": (drop(SCHEDULER), "lacks scheduler"),
    "EDM": (say(SCHEDULER, _class_name="EDMEulerScheduler"), "has a EDMEulerScheduler"),
    "another prediction": (say(SCHEDULER, prediction_type="sample"), "predicts sample"),
    "no tokenizer": (drop("tokenizer_2/tokenizer.json"), "lacks tokenizer_2/vocab.json"),
    "no weights": (drop("vae/diffusion_pytorch_model.safetensors"), "lacks vae/diff"),
    "pickles": (only("unet", "diffusion_pytorch_model.bin"), "unet has pickles"),
    "shards": (only("unet", "diffusion_pytorch_model.safetensors.index.json"), "max_shard_size"),
    "weights of text": (write("vae/diffusion_pytorch_model.safetensors", b"x"), "no safetensors"),
    "no config": (drop("vae/config.json"), r"lacks vae/config\.json"),
    "a vast size": (say("unet/config.json", sample_size=10**9), "sample_size 1000000000"),
    "inpainting": (unet(conv_in__weight=(32, 9, 3, 3)), "inpainting"),
    "other widths": (unet(conv_in__weight=(16, 4, 3, 3)), r"widths \(16, 48, 64\)"),
    "a missing tensor": (unet(conv_out__bias=None), r"lacks `conv_out\.bias`"),
    "a strange tensor": (unet(strange=(1,)), "holds `strange`"),
    "another shape": (unet(conv_out__bias=(5,)), r"`conv_out\.bias` .* \(5,\)"),
}


@pytest.mark.parametrize(("harm", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_base_is_refused_by_name(
    harm: Callable[[Path], object], said: str, mine: Path
) -> None:
    harm(mine)
    with pytest.raises(NotABase, match=said) as refused:
        folder.examine(mine)
    assert str(mine.parent) not in refused.value.detail
