"""Parsed LoRAs by content."""

from pathlib import Path

from core.diffusion.components import Components
from core.inference.lora_shelf import LoraShelf
from tests.support.nano import lora_file


def test_a_lora_is_read_once_whatever_its_path(nano_ssd_1b: Components, tmp_path: Path) -> None:
    shelf = LoraShelf()
    first = shelf.take("a", lora_file(nano_ssd_1b, tmp_path / "a.safetensors"))
    assert shelf.take("a", tmp_path / "not there") is first


def test_it_holds_as_many_bytes_as_it_was_given(nano_ssd_1b: Components, tmp_path: Path) -> None:
    paths = {
        name: lora_file(nano_ssd_1b, tmp_path / f"{name}.safetensors", seed=seed)
        for seed, name in enumerate("abc")
    }
    widths = [
        pair.a_RI.shape[1] + pair.b_OR.shape[0]
        for pair in LoraShelf().take("a", paths["a"]).unet.values()
    ]
    rank, number_bytes = 4, 4
    shelf = LoraShelf(2 * rank * number_bytes * sum(widths))
    a, b = (shelf.take(name, paths[name]) for name in "ab")
    assert shelf.take("a", paths["a"]) is a
    shelf.take("c", paths["c"])
    assert shelf.take("a", paths["a"]) is a
    assert shelf.take("b", paths["b"]) is not b
