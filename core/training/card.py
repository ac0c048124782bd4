"""A distillation's report card: what the student weighs, takes and says, beside its teacher.

All of it is measured here, on the weights that leave, read back from their file.
"""

import statistics
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from torch import Tensor

from core import sheet
from core.diffusion.components import Components
from core.diffusion.features import places, recorded
from core.diffusion.live_bytes import LiveBytes, weight_bytes
from core.diffusion.losses import mse_per_sample
from core.layouts import SSD_1B, Layout, find_layout
from core.sheet import Tile
from core.training.batches import Batch
from core.training.distillation import feature_error
from core.training.grid import TIMESTEPS, Grid
from core.training.report import SamplePicture, StepReport
from core.training.samples import Studio

ROUNDS = 5
"""Denoising steps that are timed, after one that is not."""
ENTRANTS = ("teacher", "before", "after")
WHY_36 = (
    "SSD-1B has 34 of SDXL's 70 transformer blocks and one of the middle's two ResNets: 36 blocks "
    "are gone. Its announcement and articles after it say 40; counting the published weights gives "
    "36."
)


@dataclass(frozen=True)
class Trio:
    """The teacher, and the student before and after, all held in the run's precision."""

    teacher: UNet2DConditionModel
    before: UNet2DConditionModel
    after: UNet2DConditionModel

    def __iter__(self) -> Iterator[UNet2DConditionModel]:
        return iter((self.teacher, self.before, self.after))


@torch.no_grad()
def make(
    trio: Trio, grid: Grid, report: StepReport
) -> Generator[StepReport, None, dict[str, object]]:
    """What the report says of the three. Yields ``report`` at each cell of the grid."""
    tally = _Tally(places(trio.after), trio.after.device)
    for cell in grid:
        tally.see(trio, cell)
        yield report
    pair = cell.beside(cell)  # a denoising step with guidance: a picture is two rows
    return {
        "architecture": _architecture(trio),
        "parameters": {
            "teacher": _parameters(trio.teacher),
            "student": _parameters(trio.after),
        },
        "seconds_per_denoising_step": {
            "teacher": _seconds(trio.teacher, pair),
            "student": _seconds(trio.after, pair),
        },
        "peak_memory_bytes": {
            "teacher": _peak_bytes(trio.teacher, pair),
            "student": _peak_bytes(trio.after, pair),
        },
        "pictures": f"{len(grid.pictures)}, {'held out' if grid.kept_out else 'learnt'}",
        **tally.told(len(grid)),
    }


def draw(
    trio: Trio, components: Components, studio: Studio, path: Path, report: StepReport
) -> Generator[StepReport, None, SamplePicture]:
    """A sheet at ``path``, a row a prompt: the teacher, the student before, the student after, from
    the same seeds. Yields ``report`` at each denoising step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, prompt in enumerate(studio.sample.prompts):
        row: list[Tile] = []
        for entrant, unet in zip(ENTRANTS, trio, strict=True):
            drawn = replace(components, unet=unet)
            picture = yield from studio.picture(drawn, number, report)
            row.append(_tile(picture, path.with_name(f"{entrant}-{number}.png"), entrant, prompt))
        rows.append(row)
    title = "teacher, student before, student after"
    sheet.compose(rows, title, path)
    return SamplePicture(path, title, studio.seed, report.step)


class _Tally:
    """Sums over the grid, on the device: errors of answers, shape (timesteps, 5), and of features,
    shape (places, 2)."""

    def __init__(self, compared: Sequence[str], device: torch.device) -> None:
        self._places = compared
        self._answers = torch.zeros(len(TIMESTEPS), 5, device=device)
        self._features = torch.zeros(len(compared), 2, device=device)

    def see(self, trio: Trio, batch: Batch) -> None:
        ask = partial(_answer, batch, wanted=self._places)
        taught_BCHW, taught = ask(trio.teacher)
        before_BCHW, before = ask(trio.before)
        after_BCHW, after = ask(trio.after)
        said = (taught_BCHW, before_BCHW, after_BCHW)
        true = [mse_per_sample(answer, batch.target_BCHW) for answer in said]
        alike = [mse_per_sample(answer, taught_BCHW) for answer in said[1:]]
        row = TIMESTEPS.index(int(batch.timesteps_B.item()))
        self._answers[row] += torch.cat([*true, *alike])
        self._features += torch.stack(
            [
                torch.stack([feature_error(one[place], taught[place]) for one in (before, after)])
                for place in self._places
            ]
        )

    def told(self, cells: int) -> dict[str, object]:
        by_timestep = (self._answers / (cells / len(TIMESTEPS))).cpu()
        task, teacher = by_timestep[:, :3], by_timestep[:, 3:]
        width = 1000 // len(TIMESTEPS)
        return {
            "error_to_teacher": {
                "mean": _named(teacher.mean(0), ENTRANTS[1:]),
                "bins": [
                    {"timesteps": [row * width, (row + 1) * width - 1], "at": timestep}
                    | _named(teacher[row], ENTRANTS[1:])
                    for row, timestep in enumerate(TIMESTEPS)
                ],
            },
            "task_error": _named(task.mean(0), ENTRANTS),
            "feature_error": {
                place: _named(errors, ENTRANTS[1:])
                for place, errors in zip(self._places, self._features.cpu() / cells, strict=True)
            },
        }


def _answer(
    batch: Batch, unet: UNet2DConditionModel, wanted: Sequence[str]
) -> tuple[Tensor, dict[str, Tensor]]:
    with recorded(unet, wanted) as features:
        return batch.asked_of(unet), features


def _named(numbers: Tensor, names: Sequence[str]) -> dict[str, float]:
    return dict(zip(names, numbers.tolist(), strict=True))


def _architecture(trio: Trio) -> dict[str, object]:
    teacher, student = _layout(trio.teacher), _layout(trio.after)
    blocks = {"teacher": len(list(teacher.blocks())), "student": len(list(student.blocks()))}
    told = {
        "layouts": {"teacher": teacher.id, "student": student.id},
        "transformer_blocks": blocks,
        "removed_blocks": blocks["teacher"] - blocks["student"],
    }
    return told | ({"why": WHY_36} if student == SSD_1B else {})


def _layout(unet: UNet2DConditionModel) -> Layout:
    (layout,) = find_layout(unet.state_dict())
    return layout


def _parameters(unet: UNet2DConditionModel) -> int:
    return sum(weight.numel() for weight in unet.parameters())


def _seconds(unet: UNet2DConditionModel, batch: Batch) -> float:
    """Of one denoising step of one picture with guidance, the median of a few."""
    taken = []
    for _ in range(1 + ROUNDS):
        began = time.perf_counter()
        batch.asked_of(unet).sum().item()  # which waits for the device
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])


def _peak_bytes(unet: UNet2DConditionModel, batch: Batch) -> int:
    """Of one denoising step: the UNet's weights, and the tensors that live beside them at once."""
    with LiveBytes(unet) as live:
        batch.asked_of(unet)
    peak: int = live.peak
    return weight_bytes(unet) + peak


def _tile(picture: Image.Image, path: Path, entrant: str, prompt: str) -> Tile:
    picture.save(path)
    return Tile(path, f"{entrant}: {prompt}", sheet.LARGE)
