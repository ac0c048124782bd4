"""Pictures drawn while training runs, from seeds that never change, so that they compare."""

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from PIL import Image

from core.diffusion import latents, prompts, sampling
from core.diffusion.components import Components
from core.diffusion.conditioning import Conditioning
from core.diffusion.offload import moved
from core.files.atomic import replacing
from core.specs import MAX_SEED, SampleSpec
from core.training.report import SamplePicture, StepReport


@dataclass(frozen=True)
class Studio:
    """What the pictures are drawn from; ``prompts`` are the sample's, encoded, each with the other
    side of guidance.

    Where there is a teacher, what it draws from the same seed stands to the left of each picture.
    """

    components: Components
    sample: SampleSpec
    prompts: list[tuple[Conditioning, Conditioning]]
    seed: int
    side: int
    teacher: Components | None = None
    _taught: dict[int, Image.Image] = field(default_factory=dict)

    def draw(self, report: StepReport, folder: Path) -> Iterator[StepReport]:
        """Yields at each denoising step, the last time with the pictures."""
        report = replace(report, message="sampling", loss=None)
        drawn: list[SamplePicture] = []
        for number, text in enumerate(self.sample.prompts):
            picture = yield from self.picture(self.components, number, report)
            if self.teacher:
                picture = _side_by_side((yield from self._taught_picture(number, report)), picture)
            path = folder / f"step-{report.step:06d}-{number}.png"
            with replacing(path) as aside:
                picture.save(aside, format="PNG")
            drawn.append(SamplePicture(path, text, self.seed_of(number), report.step))
        yield replace(report, samples=tuple(drawn))

    def beside(self, student: UNet2DConditionModel) -> "Studio":
        """One that draws with a student, beside what these components draw."""
        drawn = replace(self.components, unet=student)
        return replace(self, components=drawn, teacher=self.components)

    def seed_of(self, number: int) -> int:
        """Of prompt ``number``."""
        return (self.seed + number) % (MAX_SEED + 1)

    def picture(
        self, components: Components, number: int, report: StepReport
    ) -> Generator[StepReport, None, Image.Image]:
        """What ``components`` draw of prompt ``number``; yields at each denoising step."""
        generator = torch.Generator().manual_seed(self.seed_of(number))
        row = sampling.Row(*self.prompts[number], self.sample.guidance, generator)
        steps = sampling.denoise(
            components,
            [row],
            scheduler="euler",
            steps=self.sample.steps,
            height=self.side,
            width=self.side,
        )
        with closing(steps):
            for latents_1CHW in steps:  # noqa: B007 - the last is the picture
                yield report
        with moved(components.device, components.vae):
            return latents.to_image(latents.decode(components.vae, latents_1CHW)[0])

    def _taught_picture(
        self, number: int, report: StepReport
    ) -> Generator[StepReport, None, Image.Image]:
        """The teacher's, drawn once."""
        assert self.teacher, "asked for where there is one"
        if number not in self._taught:
            self._taught[number] = yield from self.picture(self.teacher, number, report)
        return self._taught[number]


def _side_by_side(left: Image.Image, right: Image.Image) -> Image.Image:
    both = Image.new("RGB", (left.width + right.width, left.height))
    both.paste(left, (0, 0))
    both.paste(right, (left.width, 0))
    return both


def studio(sample: SampleSpec, components: Components, *, seed: int, side: int) -> Studio:
    """Encodes the prompts: needs the text encoders on the device."""
    return Studio(
        components=components,
        sample=sample,
        prompts=[prompts.encode_pair(components, text, None) for text in sample.prompts],
        seed=seed,
        side=side,
    )
