"""The cache: shared by content, safe to sweep while a run works."""

import os
from pathlib import Path

import torch

from core.files import roll
from core.files.roll import Roll
from core.training.cache import Cache, key_of
from core.training.shelf import Row


def row(value: float) -> Row:
    return {"x": torch.full((1000,), float(value))}


def cache(tmp_path: Path, run: str, cap_bytes: int = 10**9) -> Cache:
    return Cache(tmp_path / "shared", links=tmp_path / run, cap_bytes=cap_bytes)


def test_what_one_run_made_the_next_one_has(tmp_path: Path) -> None:
    first, second = cache(tmp_path, "first"), cache(tmp_path, "second")
    assert not first.take("k")
    first.put("k", row(1))
    assert first.take("k")
    assert second.take("k")
    assert torch.equal(second.read("k")["x"], row(1)["x"])
    assert (first.hits, first.misses, second.hits, second.misses) == (0, 1, 1, 0)


def test_another_fact_is_another_key() -> None:
    assert key_of(what="views", side=64) == key_of(side=64, what="views")
    assert key_of(what="views", side=64) != key_of(what="views", side=128)


def test_a_sweep_takes_the_oldest_and_leaves_a_run_its_own(tmp_path: Path) -> None:
    run = cache(tmp_path, "run", cap_bytes=10_000)
    for number in range(4):
        run.put(str(number), row(number))
        os.utime(run._shared(str(number)), (number, number))
    run.sweep()
    other = cache(tmp_path, "other")
    assert [other.take(str(number)) for number in range(4)] == [False, False, True, True]
    assert [run.read(str(number))["x"][0].item() for number in range(4)] == [0, 1, 2, 3]


def test_two_runs_may_make_the_same_row(tmp_path: Path) -> None:
    first, second = cache(tmp_path, "first"), cache(tmp_path, "second")
    for run in (first, second):
        assert not run.take("k")
    for run in (first, second):
        run.put("k", row(3))
    assert torch.equal(second.read("k")["x"], row(3)["x"])
    assert len(list((tmp_path / "shared").rglob("*.safetensors"))) == 1


def test_a_roll_names_what_its_dataset_uses(tmp_path: Path) -> None:
    first, second = cache(tmp_path, "first"), cache(tmp_path, "second")
    first.roll, second.roll = (Roll.of(tmp_path / "shared", name) for name in ("one", "two"))
    first.put("k", row(1))
    assert second.take("k")
    assert not second.take("l")  # named before it is there
    for name, keys in (("one", "k\n"), ("two", "k\nl\n")):
        assert roll.path_of(tmp_path / "shared", name).read_text() == keys


def test_a_run_whose_dataset_went_leaves_nothing_in_the_cache(tmp_path: Path) -> None:
    """It lost its job, and does not know yet."""
    run = cache(tmp_path, "run")
    run.roll = Roll.of(tmp_path / "shared", "gone")
    assert not run.take("k")
    roll.strike(tmp_path / "shared", ["gone"])
    roll.sweep(tmp_path / "shared", "*.safetensors")
    run.put("k", row(1))
    assert torch.equal(run.read("k")["x"], row(1)["x"])
    assert list((tmp_path / "shared").rglob("*.safetensors")) == []
