"""Rows are kept while there is room, and right whether kept or not."""

import torch

from core.training.shelf import Row, Shelf


def test_what_fits_is_read_once_and_the_rest_each_time() -> None:
    read: list[int] = []

    def row(number: int) -> Row:
        read.append(number)
        return {"x": torch.full((4,), float(number))}

    shelf = Shelf(row, torch.device("cpu"), room_bytes=2 * 16)
    for _ in range(3):
        for number in (0, 1, 2):
            assert shelf[number]["x"].tolist() == [number] * 4
    assert read == [0, 1, 2, 2, 2]
