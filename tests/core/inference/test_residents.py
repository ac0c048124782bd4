"""Bases in memory: the budget holds, the last used stay, what goes gives its memory back."""

import weakref
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from core.diffusion import components
from core.diffusion.components import Components
from core.inference.engine import Engine
from core.inference.lora_shelf import LoraShelf
from core.inference.request import Lora
from core.inference.residents import Residents
from tests.support import nano
from tests.support.nano import lora_file


@pytest.fixture
def size_bytes(nano_folders: Mapping[str, Path]) -> int:
    """Of the smaller one."""
    return 4 * components.count_weights(nano_folders["nano-ssd-1b"])


def residents(budget_bytes: int) -> Residents:
    return Residents(budget_bytes, lambda loaded: Engine(loaded, LoraShelf(), lambda *_: 1))


def test_weights_are_counted_from_headers(
    nano_folders: Mapping[str, Path], nano_ssd_1b: Components, size_bytes: int
) -> None:
    buffers = 8 * 77 * 2  # position numbers of the text encoders
    assert abs(nano_ssd_1b.held_bytes - size_bytes) <= buffers
    unet = nano_folders["nano-sdxl"] / "unet"
    larger = components.count_weights(nano_folders["nano-ssd-1b"], unet)
    assert larger - size_bytes // 4 == 7_402_292 - 4_101_524


def test_what_is_here_is_not_loaded_again(nano_ssd_1b: Components, size_bytes: int) -> None:
    held = residents(size_bytes)
    name = ("nano-ssd-1b", "", torch.float32)
    first = held.take(name, lambda: size_bytes, lambda: nano_ssd_1b)
    assert held.take(name, pytest.fail, pytest.fail) is first
    assert held.ids == ["nano-ssd-1b"]


def test_the_one_not_used_for_longest_goes_before_another_comes(
    nano_folders: Mapping[str, Path], size_bytes: int
) -> None:
    held = residents(int(2.5 * size_bytes))
    gone = []
    for name in ("a", "b", "a", "c"):
        engine = held.take(
            (name, "", torch.float32),
            lambda: size_bytes,
            lambda: nano.load(nano_folders["nano-ssd-1b"]),
        )
        gone.append((name, weakref.ref(engine.components.unet)))
    del engine
    assert held.ids == ["a", "c"]
    assert [name for name, unet in gone if unet() is None] == ["b"]


def test_a_base_larger_than_the_budget_is_there_alone(
    nano_ssd_1b: Components, size_bytes: int
) -> None:
    held = residents(size_bytes // 2)
    for name in ("a", "b"):
        held.take((name, "", torch.float32), lambda: size_bytes, lambda: nano_ssd_1b)
    assert held.ids == ["b"]


def test_a_training_is_alone(nano_ssd_1b: Components, size_bytes: int) -> None:
    held = residents(10 * size_bytes)
    for name in ("a", "b", "c"):
        held.take((name, "", torch.float32), lambda: size_bytes, lambda: nano_ssd_1b)
    held.keep_only(("b", "", torch.float32))
    assert held.ids == ["b"]


def test_what_an_engine_remembers_counts_and_makes_way_for_a_training(
    nano_ssd_1b: Components, size_bytes: int, tmp_path: Path
) -> None:
    held, name = residents(10 * size_bytes), ("b", "", torch.float32)
    engine = held.take(name, lambda: size_bytes, lambda: nano_ssd_1b)
    path = lora_file(nano_ssd_1b, tmp_path / "a.safetensors")
    engine.stack([Lora(path, "a", 1.0)])
    assert engine.held_bytes > nano_ssd_1b.held_bytes
    held.keep_only(name)
    assert engine.held_bytes == nano_ssd_1b.held_bytes


def test_a_picture_that_needs_all_the_room_has_it(
    nano_folders: Mapping[str, Path], nano_ssd_1b: Components, size_bytes: int
) -> None:
    held = residents(10 * size_bytes)
    held.take(("a", "", torch.float32), lambda: size_bytes, lambda: nano_ssd_1b)
    other = nano.load(nano_folders["nano-ssd-1b"])
    held.take(("b", "", torch.float32), lambda: size_bytes, lambda: other)
    held.keep_only_with(nano_ssd_1b)
    assert held.ids == ["a"]
