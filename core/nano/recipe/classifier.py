"""Names what is on a picture: the measure of whether a prompt was drawn.

A small network, trained on scenes as the denoiser's corpus has them, tested on scenes that neither
has seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from core.nano.recipe import scenes
from core.nano.recipe.autoencoder import pixels
from core.nano.recipe.scenes import Cutout, Scene

SEED = 3401
FRESH_SEED = 3402
BATCH = 64
LEARNING_RATE = 3e-3
WIDTHS = (24, 48, 96, 128)


@dataclass(frozen=True)
class Verdict:
    """Of N pictures: the likeliest subject and ground colour of each, and each subject's share."""

    subjects: list[str]
    colours: list[str]
    probability_NS: Tensor


@dataclass(frozen=True)
class Classifier:
    network: nn.Module
    names: list[str]

    @torch.no_grad()
    def look(self, pictures: Sequence[Image.Image]) -> Verdict:
        """What RGB pictures of 64 px show."""
        levels_NHWC = np.stack([np.asarray(picture) for picture in pictures])
        scores = self.network(pixels(levels_NHWC))
        subject_NS, colour_NC = scores.split([len(self.names), len(scenes.COLOURS)], dim=1)
        colours = list(scenes.COLOURS)
        return Verdict(
            subjects=[self.names[index] for index in subject_NS.argmax(1)],
            colours=[colours[index] for index in colour_NC.argmax(1)],
            probability_NS=subject_NS.softmax(1),
        )


def train(cutouts: list[Cutout], steps: int) -> Classifier:
    """A classifier of the cut-outs' names; the same for the same cut-outs and steps."""
    names = sorted({cutout.name for cutout in cutouts})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network = _network(len(names) + len(scenes.COLOURS))
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    numbers = {name: number for number, name in enumerate(names)}
    colours = {name: number for number, name in enumerate(scenes.COLOURS)}
    for step in range(steps):
        seen = draw(cutouts, SEED, range(step * BATCH, (step + 1) * BATCH))
        scores = network(pixels(np.stack([scene.pixels_HWC for scene in seen])))
        subject_BS, colour_BC = scores.split([len(names), len(colours)], dim=1)
        subject_B = torch.tensor([numbers[str(scene.content.subject)] for scene in seen])
        colour_B = torch.tensor([colours[scene.content.colour] for scene in seen])
        loss = F.cross_entropy(subject_BS, subject_B) + F.cross_entropy(colour_BC, colour_B)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
    return Classifier(network.eval(), names)


def draw(cutouts: list[Cutout], seed: int, ordinals: range) -> list[Scene]:
    """One scene an ordinal, with any of the cut-outs."""
    drawn = []
    for ordinal in ordinals:
        random = scenes.random_of(seed, ordinal)
        drawn.append(scenes.compose(cutouts[int(random.integers(len(cutouts)))], random))
    return drawn


def _network(outputs: int) -> nn.Module:
    layers: list[nn.Module] = []
    before = 3
    for width in WIDTHS:
        layers += [nn.Conv2d(before, width, 3, stride=2, padding=1), nn.BatchNorm2d(width)]
        layers += [nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)]
        layers += [nn.ReLU()]
        before = width
    layers += [nn.Flatten(), nn.Dropout(0.2), nn.Linear(before * 16, outputs)]
    return nn.Sequential(*layers)
