"""Rows of tensors by number: read when first wanted, kept on the device while there is room."""

from collections.abc import Callable

import torch
from torch import Tensor

from core.estimate import ROWS_BYTES

Row = dict[str, Tensor]
"""Tensors that belong together, by name; as a file holds them."""


class Shelf:
    """Memory stays within the room however many rows there are; what found none is read again."""

    def __init__(
        self, read: Callable[[int], Row], device: torch.device, room_bytes: int = ROWS_BYTES
    ) -> None:
        """``read`` gives a row, the same whenever it is asked."""
        self._read = read
        self._device = device
        self._room_bytes = room_bytes
        self._kept: dict[int, Row] = {}

    def __getitem__(self, number: int) -> Row:
        if number in self._kept:
            return self._kept[number]
        row = {
            name: tensor.to(self._device, non_blocking=True)
            for name, tensor in self._read(number).items()
        }
        size = sum(tensor.nbytes for tensor in row.values())
        if size <= self._room_bytes:
            self._room_bytes -= size
            self._kept[number] = row
        return row
