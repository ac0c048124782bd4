"""Random numbers by sample ordinal."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from core.training import draws

SEEDS = st.integers(0, 2**32 - 1)
ORDINALS = st.integers(0, 10**6)


@given(SEEDS, ORDINALS, ORDINALS)
def test_no_two_draws_share_a_seed(seed: int, first: int, second: int) -> None:
    same = draws.derived_seed(seed, "noise", first) == draws.derived_seed(seed, "noise", second)
    assert same is (first == second)
    assert draws.derived_seed(seed, "noise", first) != draws.derived_seed(seed, "posterior", first)
    assert draws.derived_seed(seed, "noise", first) != draws.derived_seed(seed + 1, "noise", first)
    assert 0 <= draws.derived_seed(seed, "noise", first) < 2**63


@given(SEEDS, st.integers(1, 7), st.integers(0, 5))
def test_each_epoch_shows_every_example_once(seed: int, count: int, epoch: int) -> None:
    ordinals = range(epoch * count, (epoch + 1) * count)
    assert sorted(draws.example(seed, "order", n, count) for n in ordinals) == list(range(count))


def test_epochs_are_shuffled_anew() -> None:
    orders = {tuple(draws.example(0, "order", e * 6 + i, 6) for i in range(6)) for e in range(5)}
    assert len(orders) > 1


@given(SEEDS, ORDINALS)
def test_a_sample_draws_the_same_in_any_batch(seed: int, first: int) -> None:
    together = draws.normal(seed, "noise", range(first, first + 3), (2, 5))
    alone = draws.normal(seed, "noise", [first + 2], (2, 5))
    assert torch.equal(together[2:], alone)
    timesteps = draws.choices(seed, "timestep", range(first, first + 3), 1000)
    assert torch.equal(timesteps[1:2], draws.choices(seed, "timestep", [first + 1], 1000))


def test_noise_is_standard_normal_and_choices_are_even() -> None:
    noise = draws.normal(0, "noise", range(200), (4, 16, 16))
    assert abs(noise.mean().item()) < 0.01
    assert abs(noise.std().item() - 1) < 0.01
    timesteps = draws.choices(0, "timestep", range(2000), 1000)
    assert timesteps.min() >= 0
    assert timesteps.max() <= 999
    assert abs(timesteps.float().mean().item() - 499.5) < 30


def test_nobody_elses_generator_is_touched() -> None:
    before = torch.get_rng_state()
    draws.normal(0, "noise", [0], (3,))
    draws.example(0, "order", 5, 3)
    assert torch.equal(torch.get_rng_state(), before)
