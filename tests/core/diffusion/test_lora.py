"""The LoRA beside the UNet, its file, and what others make of the file."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from peft import LoraConfig
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from core.diffusion import adapter, lora
from core.diffusion.components import Components
from core.diffusion.lora import Lora
from core.diffusion.lora_file import FILE_NAME
from core.errors import ExportMismatch, LayoutMismatch
from core.specs import LoraSpec
from core.training import export
from tests.support import nano
from tests.support.nano import NUMPY_COPY, lora_file, unet_output


def trained(components: Components, *, rank: int = 4, alpha: float = 8.0) -> Lora:
    """One whose B is not zero, as after training."""
    made = Lora(components.unet, LoraSpec(rank=rank, alpha=alpha), seed=0)
    with torch.no_grad():
        for b_OR in made.b:
            b_OR.normal_(0, 0.05, generator=torch.Generator().manual_seed(1))
    return made


def test_training_starts_at_the_base(nano_ssd_1b: Components) -> None:
    fresh = Lora(nano_ssd_1b.unet, LoraSpec(), seed=0)
    before = unet_output(nano_ssd_1b)
    with fresh.attached(nano_ssd_1b.unet):
        assert torch.equal(unet_output(nano_ssd_1b), before)


def test_the_seed_decides_the_start(nano_ssd_1b: Components) -> None:
    first, again, other = (Lora(nano_ssd_1b.unet, LoraSpec(), seed=s) for s in (1, 1, 2))
    assert torch.equal(first.a[0], again.a[0])
    assert not torch.equal(first.a[0], other.a[0])
    assert first.a[0].std().item() == pytest.approx(1 / 8, rel=0.2)


def test_answers_as_peft_does(nano_folders: Mapping[str, Path], nano_ssd_1b: Components) -> None:
    ours = trained(nano_ssd_1b, rank=4, alpha=8)
    theirs = nano.load(nano_folders["nano-ssd-1b"])
    theirs.unet.add_adapter(
        LoraConfig(r=4, lora_alpha=8, target_modules=["to_q", "to_k", "to_v", "to_out.0"])
    )
    with torch.no_grad():
        for name, a_RI, b_OR in zip(ours.targets, ours.a, ours.b, strict=True):
            layer = theirs.unet.get_submodule(name)
            layer.lora_A.default.weight.copy_(a_RI)
            layer.lora_B.default.weight.copy_(b_OR)
    with ours.attached(nano_ssd_1b.unet):
        torch.testing.assert_close(unet_output(nano_ssd_1b), unet_output(theirs))


def test_the_base_is_bit_equal_after_it(nano_ssd_1b: Components) -> None:
    made, before = trained(nano_ssd_1b), unet_output(nano_ssd_1b)
    with made.attached(nano_ssd_1b.unet):
        assert not torch.equal(unet_output(nano_ssd_1b), before)
    assert torch.equal(unet_output(nano_ssd_1b), before)


def test_only_the_adapters_get_gradients_and_in_float32(
    nano_folders: Mapping[str, Path],
) -> None:
    from core.diffusion import components

    half = components.load(
        nano_folders["nano-ssd-1b"], device=torch.device("cpu"), dtype=torch.bfloat16
    )
    made = trained(half)
    with made.attached(half.unet):
        half.unet(
            torch.randn(1, 4, 16, 16).bfloat16(),
            torch.tensor([5]),
            encoder_hidden_states=torch.randn(1, 77, 128).bfloat16(),
            added_cond_kwargs={
                "text_embeds": torch.randn(1, 80).bfloat16(),
                "time_ids": torch.ones(1, 6).bfloat16(),
            },
        ).sample.float().square().mean().backward()
    gradients = [parameter.grad for parameter in made.parameters()]
    assert {g.dtype for g in gradients if g is not None} == {torch.float32}
    assert all(g is not None and g.abs().sum() > 0 for g in gradients)
    assert all(parameter.grad is None for parameter in half.unet.parameters())


def test_dropout_acts_in_train_mode_alone(nano_ssd_1b: Components) -> None:
    made = Lora(nano_ssd_1b.unet, LoraSpec(rank=4, dropout=0.5), seed=0)
    with torch.no_grad():
        for b_OR in made.b:
            b_OR.normal_(0, 0.05)
    with made.attached(nano_ssd_1b.unet):
        first, second = unet_output(nano_ssd_1b), unet_output(nano_ssd_1b)
        assert not torch.equal(first, second)
        made.eval()
        assert torch.equal(unet_output(nano_ssd_1b), unet_output(nano_ssd_1b))


def test_diffusers_loads_the_file_to_the_same_output(
    nano_ssd_1b: Components, tmp_path: Path
) -> None:
    made, bare = trained(nano_ssd_1b, rank=4, alpha=16), unet_output(nano_ssd_1b)
    export.save_for_diffusers(made, tmp_path / FILE_NAME)
    with made.attached(nano_ssd_1b.unet):
        expected = unet_output(nano_ssd_1b)
    pipeline = nano_ssd_1b.pipeline()
    pipeline.load_lora_weights(tmp_path)
    loaded = unet_output(nano_ssd_1b)
    pipeline.unload_lora_weights()
    torch.testing.assert_close(loaded, expected)
    assert not torch.allclose(loaded, bare, atol=1e-3)


def test_the_file_tells_rank_alpha_and_trigger(nano_ssd_1b: Components, tmp_path: Path) -> None:
    path = tmp_path / "lora.safetensors"
    export.save_for_diffusers(trained(nano_ssd_1b, rank=4, alpha=16), path, trigger="sks dog")
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    adapter = json.loads(metadata["lora_adapter_metadata"])
    assert (adapter["unet.r"], adapter["unet.lora_alpha"]) == (4, 16)
    assert metadata["modelspec.trigger_phrase"] == "sks dog"
    tensors = load_file(path)
    assert len(tensors) == 2 * 272
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}


def test_a_good_export_passes_and_leaves_the_base_alone(
    nano_ssd_1b: Components, tmp_path: Path
) -> None:
    made, before = trained(nano_ssd_1b, rank=4, alpha=2), unet_output(nano_ssd_1b)
    modules = {name: id(module) for name, module in nano_ssd_1b.unet.named_modules()}
    export.save_for_diffusers(made, tmp_path / FILE_NAME)
    lora.check_export(made, [tmp_path / FILE_NAME], nano_ssd_1b)
    assert torch.equal(unet_output(nano_ssd_1b), before)
    assert {name: id(module) for name, module in nano_ssd_1b.unet.named_modules()} == modules
    assert not any(parameter.requires_grad for parameter in nano_ssd_1b.unet.parameters())


Tampering = Callable[[dict[str, Tensor], dict[str, str]], object]


def lose_alpha(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    del metadata["lora_adapter_metadata"]


def lose_a_block(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    for key in [key for key in tensors if "up_blocks.0.attentions.2" in key]:
        del tensors[key]


def lose_all_effect(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    for key in tensors:
        tensors[key] = torch.zeros_like(tensors[key])


def overflow(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    tensors[next(iter(tensors))].fill_(float("inf"))


# peft notices that its config names more than a file with a block missing holds; nobody reads it.
@pytest.mark.filterwarnings("ignore:While injecting the PEFT adapters:RuntimeWarning")
@pytest.mark.parametrize(
    ("tamper", "words"),
    [
        (lose_alpha, "is off by"),
        (lose_a_block, "is off by"),
        (lose_all_effect, "changes nothing"),
        (overflow, "not finite"),
    ],
)
def test_a_bad_export_is_refused(
    tamper: Tampering, words: str, nano_ssd_1b: Components, tmp_path: Path
) -> None:
    made, path = trained(nano_ssd_1b, rank=4, alpha=8), tmp_path / FILE_NAME
    export.save_for_diffusers(made, path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    tamper(tensors, metadata)
    save_file(tensors, path, metadata=metadata)
    before = unet_output(nano_ssd_1b)
    with pytest.raises(ExportMismatch, match=words):
        lora.check_export(made, [path], nano_ssd_1b)
    assert torch.equal(unet_output(nano_ssd_1b), before)


@NUMPY_COPY
def test_the_articles_snippet(
    nano_folders: Mapping[str, Path],
    nano_ssd_1b: Components,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    lora_file(nano_ssd_1b, tmp_path / "work_dirs" / FILE_NAME)
    # fmt: off
    checkpoint = 'work_dirs'
    prompt = 'A photo of sks dog in a bucket'

    pipe = DiffusionPipeline.from_pretrained(nano_folders["nano-ssd-1b"])
    pipe.to('cpu')
    pipe.load_lora_weights(checkpoint)

    image = pipe(
        prompt,
        num_inference_steps=50,
    ).images[0]
    image.save('demo.png')
    # fmt: on
    assert (tmp_path / "demo.png").stat().st_size > 1000


def test_it_begins_where_another_ends(nano_ssd_1b: Components, tmp_path: Path) -> None:
    first = trained(nano_ssd_1b, rank=4, alpha=16)
    export.save_for_diffusers(first, tmp_path / FILE_NAME)
    second = Lora(nano_ssd_1b.unet, LoraSpec(rank=4, alpha=2), seed=9)
    second.begin_with(adapter.read(tmp_path / FILE_NAME).unet)
    with first.attached(nano_ssd_1b.unet):
        expected = unet_output(nano_ssd_1b)
    with second.attached(nano_ssd_1b.unet):
        torch.testing.assert_close(unet_output(nano_ssd_1b), expected)


@pytest.mark.parametrize(
    ("fields", "words"),
    [({"rank": 8}, "another size or rank"), ({"targets": "transformer"}, "only one of the two")],
)
def test_it_begins_with_nothing_that_does_not_fit(
    fields: dict[str, object], words: str, nano_ssd_1b: Components, tmp_path: Path
) -> None:
    export.save_for_diffusers(trained(nano_ssd_1b, rank=4), tmp_path / FILE_NAME)
    other = Lora(nano_ssd_1b.unet, LoraSpec.model_validate({"rank": 4, **fields}), seed=0)
    with pytest.raises(LayoutMismatch, match=words):
        other.begin_with(adapter.read(tmp_path / FILE_NAME).unet)


def test_the_same_lora_is_the_same_bytes_whoever_writes_it(
    nano_ssd_1b: Components, tmp_path: Path
) -> None:
    export.save_for_diffusers(
        trained(nano_ssd_1b, rank=4), tmp_path / FILE_NAME, trigger="sks \u00e9"
    )
    content = (tmp_path / FILE_NAME).read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert list(header["__metadata__"]) == sorted(header["__metadata__"])
    assert header["__metadata__"]["modelspec.trigger_phrase"] == "sks \u00e9"
    assert len(load_file(tmp_path / FILE_NAME)) == 2 * 272
