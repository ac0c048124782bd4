"""Checkpoints of one file, of the original layout: whole ones of the nano pair, and headers alone.

torch is imported inside, so that tests of the service side start without it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from core.files import safetensors_header
from core.files.safetensors_header import ITEM_BYTES, METADATA

if TYPE_CHECKING:
    from core.layouts import Layout

Told = Mapping[str, tuple[str, tuple[int, ...]]]
"""Dtype and shape of a tensor."""


def write_nano(path: Path, folder: Path, layout: Layout) -> Path:
    """The pipeline of ``folder``, in halves."""
    from core.diffusion import single_file
    from tests.support.nano import load

    components = load(folder)
    single_file.write(path, components.unet.state_dict(), components, layout=layout, side=64)
    return path


def real_size(layout: Layout) -> dict[str, tuple[str, tuple[int, ...]]]:
    """What a file of real size tells of its tensors, in halves."""
    import torch

    from core.diffusion import single_file
    from tests.support import real_size

    with torch.device("meta"):
        first, second = real_size.text_encoders()
        parts: Any = SimpleNamespace(vae=real_size.vae(), text_encoder=first, text_encoder_2=second)
        unet = real_size.unet(layout).state_dict()
    file = single_file.arrange(unet, parts)
    return {key: ("F16", tuple(tensor.shape)) for key, tensor in file.items()}


def told(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """What the file tells of its tensors."""
    with path.open("rb") as file:
        entries = safetensors_header.read(file).tensors.items()
    return {key: (entry.dtype, entry.shape) for key, entry in entries}


def write_header(path: Path, tensors: Told, **metadata: str) -> Path:
    """A file whose tensors are holes: as long as it says, and no longer on the disk than this."""
    entries: dict[str, object] = {METADATA: metadata}
    begin = 0
    for key, (dtype, shape) in tensors.items():
        end = begin + math.prod(shape) * ITEM_BYTES[dtype]
        entries[key] = {"dtype": dtype, "shape": [*shape], "data_offsets": [begin, end]}
        begin = end
    header = safetensors_header.text(entries)
    path.write_bytes(header)
    with path.open("r+b") as file:
        file.truncate(len(header) + begin)
    return path
