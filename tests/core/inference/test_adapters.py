"""Stacks of LoRAs beside the UNet, against what diffusers makes of the same files."""

import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from core.diffusion import adapter
from core.diffusion.adapter import Updates
from core.diffusion.components import Components
from core.diffusion.lora_file import Pair
from core.errors import LayoutMismatch, Unprocessable
from core.inference import adapters
from tests.support import nano
from tests.support.nano import lora_file, unet_output


def applied(components: Components, *stack: tuple[Path, float]) -> AbstractContextManager[None]:
    """These files and weights, for every row."""
    updates = [(adapter.read(path).unet, weight) for path, weight in stack]
    return adapters.applied([adapters.compose(updates, components.unet)])


def dora_file(components: Components, path: Path) -> Path:
    """In peft's keys, with magnitudes that are not those of the base."""
    tensors = load_file(lora_file(components, path, rank=4, seed=7))
    random = torch.Generator().manual_seed(8)
    for key in [key for key in tensors if key.endswith(".lora_A.weight")]:
        module = key.removesuffix(".lora_A.weight")
        layer = components.unet.get_submodule(module.removeprefix("unet."))
        scale_O = 1 + 0.3 * torch.rand(layer.out_features, generator=random)
        magnitude_O = layer.weight.norm(dim=1) * scale_O
        tensors[f"{module}.lora_magnitude_vector"] = magnitude_O
    save_file(tensors, path)
    return path


def dora_updates(path: Path) -> Updates:
    """Of such a file; where it tells no alpha, that is the rank."""
    tensors = load_file(path)
    modules = {key.partition(".lora_")[0] for key in tensors}
    return {
        module.removeprefix("unet."): Pair(
            tensors[f"{module}.lora_A.weight"],
            tensors[f"{module}.lora_B.weight"],
            tensors[f"{module}.lora_magnitude_vector"],
        )
        for module in modules
    }


def inputs_of(components: Components, rows: int) -> dict[str, Tensor]:
    """Of the UNet, other ones for each row."""
    random = torch.Generator().manual_seed(5)
    return {
        "sample": torch.randn(rows, 4, 16, 16, generator=random),
        "encoder_hidden_states": torch.randn(rows, 77, 128, generator=random),
        "text_embeds": torch.randn(rows, components.pooled_width, generator=random),
        "time_ids": torch.full((rows, 6), 64.0),
    }


@torch.no_grad()
def answer(components: Components, inputs: dict[str, Tensor]) -> Tensor:
    added = {name: inputs[name] for name in ("text_embeds", "time_ids")}
    said: Tensor = components.unet(
        inputs["sample"],
        500,
        encoder_hidden_states=inputs["encoder_hidden_states"],
        added_cond_kwargs=added,
    ).sample
    return said


def test_one_lora_equals_diffusers(nano_ssd_1b: Components, tmp_path: Path) -> None:
    path = lora_file(nano_ssd_1b, tmp_path / "a.safetensors", rank=4, alpha=16)
    pipeline = nano_ssd_1b.pipeline()
    pipeline.load_lora_weights(tmp_path, weight_name=path.name)
    expected = unet_output(nano_ssd_1b)
    pipeline.unload_lora_weights()
    with applied(nano_ssd_1b, (path, 1.0)):
        torch.testing.assert_close(unet_output(nano_ssd_1b), expected)


# peft says so of any second adapter.
@pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute:UserWarning")
def test_two_loras_at_weights_equal_set_adapters(nano_ssd_1b: Components, tmp_path: Path) -> None:
    first = lora_file(nano_ssd_1b, tmp_path / "a.safetensors", rank=4, alpha=8, seed=1)
    second = lora_file(nano_ssd_1b, tmp_path / "b.safetensors", rank=2, alpha=1, seed=2)
    pipeline = nano_ssd_1b.pipeline()
    pipeline.load_lora_weights(tmp_path, weight_name=first.name, adapter_name="a")
    pipeline.load_lora_weights(tmp_path, weight_name=second.name, adapter_name="b")
    pipeline.set_adapters(["a", "b"], [0.75, -0.5])
    expected = unet_output(nano_ssd_1b)
    pipeline.unload_lora_weights()
    with applied(nano_ssd_1b, (first, 0.75), (second, -0.5)):
        torch.testing.assert_close(unet_output(nano_ssd_1b), expected)


def test_dora_equals_diffusers(nano_ssd_1b: Components, tmp_path: Path) -> None:
    """As it was trained, and beside a LoRA without magnitudes."""
    dora = dora_file(nano_ssd_1b, tmp_path / "dora.safetensors")
    plain = lora_file(nano_ssd_1b, tmp_path / "plain.safetensors", rank=2, seed=2)
    pipeline = nano_ssd_1b.pipeline()
    pipeline.load_lora_weights(load_file(dora), adapter_name="dora")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft says so of any second adapter
        pipeline.load_lora_weights(tmp_path, weight_name=plain.name, adapter_name="plain")
    pipeline.set_adapters(["dora", "plain"], [1.0, 0.5])
    expected = unet_output(nano_ssd_1b)
    pipeline.unload_lora_weights()
    stack = [(dora_updates(dora), 1.0), (adapter.read(plain).unet, 0.5)]
    with adapters.applied([adapters.compose(stack, nano_ssd_1b.unet)]):
        ours = unet_output(nano_ssd_1b)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("weight", [1.0, 0.4, 0.0, -0.5])
@torch.no_grad()
def test_a_doras_weight_goes_from_the_base_to_what_was_trained(weight: float) -> None:
    """1 is as trained, 0 is off, below 0 turns it round: against whole matrices."""
    random = torch.Generator().manual_seed(3)
    model = nn.Sequential(nn.Linear(8, 6))
    layer = model[0]
    assert isinstance(layer, nn.Linear)
    layer.weight.normal_(generator=random)
    pair = Pair(
        torch.randn(2, 8, generator=random),
        torch.randn(6, 2, generator=random),
        1 + torch.rand(6, generator=random),
    )
    inputs = torch.randn(3, 8, generator=random)
    merged = layer.weight + pair.b_OR @ pair.a_RI
    assert pair.magnitude_O is not None
    trained = pair.magnitude_O[:, None] * merged / merged.norm(dim=1, keepdim=True)
    expected = inputs @ torch.lerp(layer.weight, trained, weight).T + layer.bias
    with adapters.applied([adapters.compose([({"0": pair}, weight)], model)]):
        torch.testing.assert_close(model(inputs), expected)
    with adapters.applied([adapters.compose([({"0": pair}, 0.0)], model)]):
        torch.testing.assert_close(model(inputs), layer(inputs))


def test_each_row_has_its_own_stack_on_both_sides_of_guidance(
    nano_ssd_1b: Components, tmp_path: Path
) -> None:
    """Of other ranks, other modules, with DoRA, and none at all."""
    model, unet = nano_ssd_1b, nano_ssd_1b.unet
    updates = [
        (adapter.read(lora_file(model, tmp_path / "a.safetensors", rank=4, seed=1)).unet, 1.0),
        (dora_updates(dora_file(model, tmp_path / "b.safetensors")), 0.5),
        (adapter.read(lora_file(model, tmp_path / "c.safetensors", rank=2, seed=3)).unet, -1.0),
    ]
    stacks = [adapters.compose([each], unet) for each in updates]
    stacks = [{}, *stacks[:2], dict(list(stacks[2].items())[:9])]
    inputs = inputs_of(model, len(stacks))
    alone = []
    for row, stack in enumerate(stacks):
        with adapters.applied([stack]):
            alone.append(
                answer(model, {name: each[row : row + 1] for name, each in inputs.items()})
            )
    twice = {name: torch.cat([each, each]) for name, each in inputs.items()}
    with adapters.applied(stacks, copies=2):
        together = answer(model, twice)
    torch.testing.assert_close(together, torch.cat(alone * 2), rtol=1e-4, atol=1e-5)


def test_a_file_without_metadata_has_its_rank_for_alpha(
    nano_ssd_1b: Components, tmp_path: Path
) -> None:
    path = lora_file(nano_ssd_1b, tmp_path / "a.safetensors", rank=4, alpha=8)
    told = adapter.read(path).unet
    save_file(load_file(path), path)
    untold = adapter.read(path).unet
    assert all(torch.equal(told[module].b_OR, 2 * untold[module].b_OR) for module in told)


def test_the_base_is_bit_equal_after_it(nano_ssd_1b: Components, tmp_path: Path) -> None:
    path = lora_file(nano_ssd_1b, tmp_path / "a.safetensors")
    before = unet_output(nano_ssd_1b)
    with applied(nano_ssd_1b, (path, 1.0)):
        assert not torch.equal(unet_output(nano_ssd_1b), before)
    assert torch.equal(unet_output(nano_ssd_1b), before)


def test_no_lora_at_all_changes_nothing(nano_ssd_1b: Components) -> None:
    before = unet_output(nano_ssd_1b)
    with applied(nano_ssd_1b):
        assert torch.equal(unet_output(nano_ssd_1b), before)


def test_a_lora_of_another_layout_is_refused_before_a_hook_is_set(
    nano_folders: Mapping[str, Path], nano_ssd_1b: Components, tmp_path: Path
) -> None:
    large = nano.load(nano_folders["nano-sdxl"])
    path = lora_file(large, tmp_path / "sdxl.safetensors")
    before = unet_output(nano_ssd_1b)
    with (
        pytest.raises(LayoutMismatch, match=r"`[a-z]+_block[s.\w]*transformer_blocks[.\w]*`"),
        applied(nano_ssd_1b, (path, 1.0)),
    ):
        pass
    assert torch.equal(unet_output(nano_ssd_1b), before)


@pytest.mark.parametrize(
    "module", ["up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q", "conv_in"]
)
def test_a_lora_of_another_width_is_refused(module: str, nano_ssd_1b: Components) -> None:
    update = Pair(torch.zeros(2, 640), torch.zeros(640, 2))
    with pytest.raises(LayoutMismatch, match=rf"`{module}` of size \(640, 640\)"):
        adapters.compose([({module: update}, 1.0)], nano_ssd_1b.unet)


@pytest.mark.parametrize(
    "key", ["lora_unet_mid_block.lora_down.weight", "unet.mid_block.processor.to_q_lora.up.weight"]
)
def test_a_key_of_another_format_is_named(key: str, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({key: torch.zeros(1, 1)}, path)
    with pytest.raises(Unprocessable, match=key.partition(".")[0]):
        adapter.read(path)


@pytest.mark.parametrize(("there", "missing"), [("A", "B"), ("B", "A")])
def test_half_a_pair_is_named(there: str, missing: str, tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    save_file({f"unet.x.to_q.lora_{there}.weight": torch.zeros(1, 1)}, path)
    with pytest.raises(Unprocessable, match=rf"unet\.x\.to_q\.lora_{missing}\.weight"):
        adapter.read(path)
