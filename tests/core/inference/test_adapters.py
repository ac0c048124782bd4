"""Stacks of LoRAs beside the UNet, against what diffusers makes of the same files."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.diffusion import adapter
from core.diffusion.components import Components
from core.diffusion.lora_file import Pair
from core.errors import LayoutMismatch
from core.inference import adapters
from tests.support import nano
from tests.support.nano import lora_file, unet_output


def test_one_lora_equals_diffusers(nano_ssd_1b: Components, tmp_path: Path) -> None:
    path = lora_file(nano_ssd_1b, tmp_path / "a.safetensors", rank=4, alpha=16)
    pipeline = nano_ssd_1b.pipeline()
    pipeline.load_lora_weights(tmp_path, weight_name=path.name)
    expected = unet_output(nano_ssd_1b)
    pipeline.unload_lora_weights()
    with adapters.applied(adapter.read(path), nano_ssd_1b.unet):
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
    stack = adapters.compose([(adapter.read(first), 0.75), (adapter.read(second), -0.5)])
    assert {len(update.a_RI) for update in stack.values()} == {6}
    with adapters.applied(stack, nano_ssd_1b.unet):
        torch.testing.assert_close(unet_output(nano_ssd_1b), expected)


def test_a_file_without_metadata_has_its_rank_for_alpha(
    nano_ssd_1b: Components, tmp_path: Path
) -> None:
    path = lora_file(nano_ssd_1b, tmp_path / "a.safetensors", rank=4, alpha=8)
    told = adapter.read(path)
    save_file(load_file(path), path)
    untold = adapter.read(path)
    assert all(torch.equal(told[module].b_OR, 2 * untold[module].b_OR) for module in told)


def test_the_base_is_bit_equal_after_it(nano_ssd_1b: Components, tmp_path: Path) -> None:
    one = adapter.read(lora_file(nano_ssd_1b, tmp_path / "a.safetensors"))
    before = unet_output(nano_ssd_1b)
    with adapters.applied(one, nano_ssd_1b.unet):
        assert not torch.equal(unet_output(nano_ssd_1b), before)
    assert torch.equal(unet_output(nano_ssd_1b), before)


def test_no_lora_at_all_changes_nothing(nano_ssd_1b: Components) -> None:
    before = unet_output(nano_ssd_1b)
    with adapters.applied(adapters.compose([]), nano_ssd_1b.unet):
        assert torch.equal(unet_output(nano_ssd_1b), before)


def test_a_lora_of_another_layout_is_refused_before_a_hook_is_set(
    nano_folders: Mapping[str, Path], nano_ssd_1b: Components, tmp_path: Path
) -> None:
    large = nano.load(nano_folders["nano-sdxl"])
    one = adapter.read(lora_file(large, tmp_path / "sdxl.safetensors"))
    before = unet_output(nano_ssd_1b)
    with (
        pytest.raises(LayoutMismatch, match=r"`[a-z]+_block[s.\w]*transformer_blocks[.\w]*`"),
        adapters.applied(one, nano_ssd_1b.unet),
    ):
        pass
    assert torch.equal(unet_output(nano_ssd_1b), before)


@pytest.mark.parametrize(
    "module", ["up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q", "conv_in"]
)
def test_a_lora_of_another_width_is_refused(module: str, nano_ssd_1b: Components) -> None:
    update = Pair(torch.zeros(2, 640), torch.zeros(640, 2))
    with (
        pytest.raises(LayoutMismatch, match=rf"`{module}` of size \(640, 640\)"),
        adapters.applied({module: update}, nano_ssd_1b.unet),
    ):
        pass


@pytest.mark.parametrize(
    "key", ["lora_unet_mid_block.lora_down.weight", "unet.mid_block.processor.to_q_lora.up.weight"]
)
def test_a_key_of_another_format_is_named(key: str, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({key: torch.zeros(1, 1)}, path)
    with pytest.raises(LayoutMismatch, match=key.partition(".")[0]):
        adapter.read(path)


@pytest.mark.parametrize(("there", "missing"), [("A", "B"), ("B", "A")])
def test_half_a_pair_is_named(there: str, missing: str, tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    save_file({f"unet.x.to_q.lora_{there}.weight": torch.zeros(1, 1)}, path)
    with pytest.raises(LayoutMismatch, match=rf"unet\.x\.to_q\.lora_{missing}\.weight"):
        adapter.read(path)
