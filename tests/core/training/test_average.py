"""The average against its recurrence."""

import torch

from core.training.average import Average


def test_it_follows_the_recurrence() -> None:
    weight = torch.zeros(3)
    average = Average([weight], decay=0.5)
    expected = torch.zeros(3, dtype=torch.float64)
    for step in range(20):
        weight += step
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weight.double()
    torch.testing.assert_close(average.tensors[0].double(), expected, rtol=1e-6, atol=1e-6)


def test_in_place_the_weights_are_the_average_and_then_themselves_again() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    average = Average([weight], decay=0.9)
    with torch.no_grad():
        weight.fill_(5)
    with average.in_place():
        assert weight.tolist() == [1, 1]
    assert weight.tolist() == [5, 5]
    assert average.tensors[0].tolist() == [1, 1]
