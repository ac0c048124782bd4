"""Scenes encoded once: the latents that the UNet trains on, with what their captions need."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from core.diffusion import latents
from core.nano.recipe import autoencoder, scenes
from core.nano.recipe.scenes import Array, Content, Cutout, Scene

SEED = 3201
HELD_OUT_SEED = 3202
EMPTY_SHARE = 0.03
"""Of scenes that are all background."""
SHAPE_SHARE = 0.15
"""Of scenes with a drawn shape, where there is a folder of other subjects beside."""
CHUNK = 64  # pictures encoded at once


@dataclass(frozen=True)
class Corpus:
    """N scenes."""

    latents_NCHW: Tensor  # in the UNet's units, float16
    time_ids_N6: Tensor  # float32
    contents: list[Content]

    def __len__(self) -> int:
        return len(self.contents)


def scene(shapes: list[Cutout], others: list[Cutout], seed: int, ordinal: int) -> Scene:
    """The scene of an ordinal."""
    random = scenes.random_of(seed, ordinal)
    kind, choice = random.random(), random.random()
    source = shapes if not others or kind < SHAPE_SHARE else others
    empty = kind > 1 - EMPTY_SHARE
    return scenes.compose(None if empty else source[int(choice * len(source))], random)


def encode(vae: AutoencoderKL, drawn: Iterator[Scene], path: Path) -> None:
    """Writes the scenes' corpus."""
    parts: list[Tensor] = []
    kept: list[Scene] = []
    chunk: list[Array] = []
    for one in drawn:
        kept.append(one)
        chunk.append(one.pixels_HWC)
        if len(chunk) == CHUNK:
            parts.append(_latents(vae, chunk))
            chunk = []
    if chunk:
        parts.append(_latents(vae, chunk))
    contents = [[one.content.subject, one.content.colour, one.content.texture] for one in kept]
    tensors = {
        "latents": torch.cat(parts).half().contiguous(),
        "time_ids": torch.tensor([one.time_ids for one in kept], dtype=torch.float32),
    }
    aside = path.with_suffix(".part")
    save_file(tensors, aside, {"contents": json.dumps(contents)})
    aside.replace(path)


def read(path: Path) -> Corpus:
    with safe_open(path, framework="pt") as file:
        return Corpus(
            latents_NCHW=file.get_tensor("latents"),
            time_ids_N6=file.get_tensor("time_ids"),
            contents=[Content(*row) for row in json.loads(file.metadata()["contents"])],
        )


def _latents(vae: AutoencoderKL, pictures: list[Array]) -> Tensor:
    return latents.encode(vae, autoencoder.pixels(np.stack(pictures))).mean_BCHW
