"""LoRAs of every dialect, read and applied, against what diffusers makes of the same file."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn

from core.diffusion import adapter
from core.diffusion.adapter import Updates
from core.diffusion.components import Components
from core.diffusion.hooks import hooked
from core.diffusion.lora_file import Pair
from core.errors import Unprocessable
from core.layouts import SSD_1B
from tests.support import loras, nano
from tests.support.nano import unet_output

ATTENTION = SSD_1B.attention_modules()
ENCODERS = ("text_encoder", "text_encoder_2")


def text_output(components: Components, model: str) -> Tensor:
    """What a text encoder answers to one fixed input."""
    ids = torch.arange(77)[None] % 50
    with torch.no_grad():
        output: Tensor = getattr(components, model)(ids).last_hidden_state
    return output


@contextmanager
def applied(updates: Updates, model: nn.Module) -> Iterator[None]:
    """The plain reference: y + B (A x), module by module."""

    def hook(pair: Pair) -> object:
        return lambda module, inputs, output: output + inputs[0] @ pair.a_RI.T @ pair.b_OR.T

    with hooked({model.get_submodule(name): hook(pair) for name, pair in updates.items()}):  # type: ignore[misc]
        yield


def outputs(components: Components) -> dict[str, Tensor]:
    text = {model: text_output(components, model) for model in ENCODERS}
    return {"unet": unet_output(components), **text}


def outputs_of_ours(components: Components, path: Path) -> dict[str, Tensor]:
    read = adapter.read(path)
    with (
        applied(read.unet, components.unet),
        applied(read.text_encoder, components.text_encoder),
        applied(read.text_encoder_2, components.text_encoder_2),
    ):
        return outputs(components)


def outputs_of_diffusers(components: Components, path: Path) -> dict[str, Tensor]:
    pipeline = components.pipeline()
    pipeline.load_lora_weights(path.parent, weight_name=path.name)
    try:
        return outputs(components)
    finally:
        pipeline.unload_lora_weights()


def assert_same(components: Components, path: Path, *models: str) -> None:
    bare, ours = outputs(components), outputs_of_ours(components, path)
    theirs = outputs_of_diffusers(components, path)
    for model in models:
        torch.testing.assert_close(ours[model], theirs[model])
        assert not torch.allclose(ours[model], bare[model], atol=1e-2), model


@pytest.mark.parametrize("dialect", loras.WHOLE)
@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_all_three_models_in_every_dialect(
    dialect: str, dtype: str, nano_ssd_1b: Components, tmp_path: Path
) -> None:
    pairs = loras.unet_pairs() | loras.text_pairs()
    tensors = loras.spelt(loras.WHOLE[dialect], pairs, 6 if "kohya" in dialect else None)
    path = tmp_path / "x.safetensors"
    path.write_bytes(loras.file_of(tensors, dtype=dtype))
    assert_same(nano_ssd_1b, path, "unet", *ENCODERS)


def test_old_attention_processors(nano_ssd_1b: Components, tmp_path: Path) -> None:
    pairs = loras.unet_pairs(modules=ATTENTION)
    path, bare = tmp_path / "x.safetensors", tmp_path / "bare.safetensors"
    path.write_bytes(loras.file_of(loras.spelt(loras.processors, pairs)))
    assert_same(nano_ssd_1b, path, "unet")
    # which diffusers' pipeline passes over without a word
    bare.write_bytes(loras.file_of(loras.spelt(loras.bare_processors, pairs)))
    ours = (outputs_of_ours(nano_ssd_1b, each)["unet"] for each in (path, bare))
    assert torch.equal(*ours)


def test_alphas_of_each_module(nano_ssd_1b: Components, tmp_path: Path) -> None:
    """diffusers looks for those of attention under names that it has just changed, and passes them
    over: the reference is the same LoRA with its alphas multiplied in."""
    tensors = loras.spelt(loras.kohya_sgm, loras.unet_pairs(), 1)
    folded = dict(tensors)
    for number, key in enumerate(key for key in tensors if key.endswith(".alpha")):
        alpha, up = 1 + number % 5, key.replace(".alpha", ".lora_up.weight")
        tensors[key] = np.array(alpha, np.float32)
        folded |= {key: np.array(4, np.float32), up: tensors[up] * (alpha / 4)}
    path, plain = tmp_path / "x.safetensors", tmp_path / "plain.safetensors"
    path.write_bytes(loras.file_of(tensors))
    plain.write_bytes(loras.file_of(folded))
    ours = outputs_of_ours(nano_ssd_1b, path)["unet"]
    torch.testing.assert_close(ours, outputs_of_diffusers(nano_ssd_1b, plain)["unet"])


def test_convolutions_of_one_pixel_are_linear(tmp_path: Path) -> None:
    tensors = loras.spelt(loras.kohya_sgm, loras.unet_pairs(), 1)
    path, other = tmp_path / "x.safetensors", tmp_path / "other.safetensors"
    path.write_bytes(loras.file_of(tensors))
    for key, tensor in tensors.items():
        if "proj_in.lora" in key:
            tensors[key] = tensor[:, :, None, None]
    other.write_bytes(loras.file_of(tensors))
    linear, convolutions = adapter.read(path).unet, adapter.read(other).unet
    for module, pair in linear.items():
        assert torch.equal(pair.a_RI, convolutions[module].a_RI)
        assert torch.equal(pair.b_OR, convolutions[module].b_OR)


@pytest.mark.parametrize("stabilized", [False, True])
def test_pefts_configuration_in_the_metadata(
    stabilized: bool, nano_ssd_1b: Components, tmp_path: Path
) -> None:
    told = {
        "r": 4,
        "lora_alpha": 8,
        "alpha_pattern": {ATTENTION[0]: 2, ATTENTION[9]: 32},
        "target_modules": ["to_q", "to_k", "to_v", "to_out.0"],
        "use_rslora": stabilized,
    }
    metadata = {"lora_adapter_metadata": json.dumps({f"unet.{k}": v for k, v in told.items()})}
    path = tmp_path / "x.safetensors"
    tensors = loras.spelt(loras.peft, loras.unet_pairs(modules=ATTENTION))
    path.write_bytes(loras.file_of(tensors, metadata))
    assert_same(nano_ssd_1b, path, "unet")


def test_what_diffusers_itself_saves(nano_folders: Mapping[str, Path], tmp_path: Path) -> None:
    """Its own names for attention, peft's for the rest, and alphas in the metadata."""
    components = nano.load(nano_folders["nano-ssd-1b"])
    config = LoraConfig(
        r=4,
        lora_alpha=12,
        target_modules=["to_q", "to_out.0", "ff.net.2", "proj_in"],
        init_lora_weights=False,
    )
    text = LoraConfig(
        r=2, lora_alpha=6, target_modules=["q_proj", "out_proj", "fc1"], init_lora_weights=False
    )
    torch.manual_seed(0)
    components.unet.add_adapter(config)
    components.text_encoder.add_adapter(text)
    components.text_encoder_2.add_adapter(text)
    StableDiffusionXLPipeline.save_lora_weights(
        tmp_path,
        unet_lora_layers=get_peft_model_state_dict(components.unet),
        text_encoder_lora_layers=get_peft_model_state_dict(components.text_encoder),
        text_encoder_2_lora_layers=get_peft_model_state_dict(components.text_encoder_2),
        unet_lora_adapter_metadata={"r": 4, "lora_alpha": 12},
        text_encoder_lora_adapter_metadata={"r": 2, "lora_alpha": 6},
        text_encoder_2_lora_adapter_metadata={"r": 2, "lora_alpha": 6},
    )
    expected = outputs(components)
    fresh = nano.load(nano_folders["nano-ssd-1b"])
    ours = outputs_of_ours(fresh, tmp_path / "pytorch_lora_weights.safetensors")
    for model, output in expected.items():
        torch.testing.assert_close(ours[model], output)


def test_doras_lengths_as_peft_saves_them(nano_folders: Mapping[str, Path], tmp_path: Path) -> None:
    components = nano.load(nano_folders["nano-ssd-1b"])
    bare = components.unet.state_dict()
    bare = {key: tensor.clone() for key, tensor in bare.items()}
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["to_q", "proj_out"], use_dora=True)
    components.unet.add_adapter(config)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, weight in components.unet.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.05, generator=generator)
            elif "lora_magnitude" in name:
                weight.mul_(1.1)
    expected = unet_output(components)
    layers = get_peft_model_state_dict(components.unet)
    StableDiffusionXLPipeline.save_lora_weights(
        tmp_path, layers, unet_lora_adapter_metadata={"r": 4, "lora_alpha": 8, "use_dora": True}
    )
    read = adapter.read(tmp_path / "pytorch_lora_weights.safetensors").unet
    fresh = nano.load(nano_folders["nano-ssd-1b"])
    with torch.no_grad():
        for module, pair in read.items():
            assert pair.magnitude_O is not None
            weight_OI = bare[f"{module}.weight"] + pair.b_OR @ pair.a_RI
            length_O = weight_OI.norm(dim=1)
            fresh.unet.get_submodule(module).weight.copy_(
                weight_OI * (pair.magnitude_O / length_O)[:, None]
            )
    torch.testing.assert_close(unet_output(fresh), expected)


@pytest.mark.parametrize("shape", [(48,), (48, 1), (48, 1, 1, 1)])
def test_doras_lengths_as_lycoris_saves_them(shape: tuple[int, ...], tmp_path: Path) -> None:
    key, module = "lora_unet_input_blocks_4_1_proj_in", "down_blocks.1.attentions.0.proj_in"
    path = tmp_path / "x.safetensors"
    tensors = {f"{key}.lora_down.weight": torch.ones(2, 48), f"{key}.alpha": torch.tensor(1.0)}
    tensors |= {f"{key}.lora_up.weight": torch.ones(48, 2)}
    lengths = torch.arange(48.0)
    save_file(tensors | {f"{key}.dora_scale": lengths.reshape(shape)}, path)
    pair = adapter.read(path).unet[module]
    assert pair.magnitude_O is not None
    assert torch.equal(pair.magnitude_O, lengths)
    assert torch.equal(pair.b_OR, torch.full((48, 2), 0.5))


def test_modules_are_where_transformers_has_them(nano_ssd_1b: Components, tmp_path: Path) -> None:
    """Of the pinned version: one class was flattened, the other was not."""
    path = tmp_path / "x.safetensors"
    path.write_bytes(loras.file_of(loras.spelt(loras.kohya, loras.text_pairs())))
    read = adapter.read(path)
    for model in ENCODERS:
        linear = {
            name
            for name, module in getattr(nano_ssd_1b, model).named_modules()
            if isinstance(module, nn.Linear) and "layers" in name
        }
        assert set(getattr(read, model)) == linear


def test_what_stands_for_nothing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"lora_te1_text_model_x.alpha": torch.ones(())}, path)
    with pytest.raises(Unprocessable, match="lora_te1_text_model_x"):
        adapter.read(path)
    tensors = loras.spelt(loras.kohya_sgm, loras.unet_pairs(modules=ATTENTION[:1]), 2)
    down, up, *_ = tensors
    path.write_bytes(loras.file_of({down: tensors[down]}))
    with pytest.raises(Unprocessable, match=up):
        adapter.read(path)
