"""Prior preservation: pictures of the class as the base draws it, learnt beside the subject.

They keep the class what it was while one member of it gets a name. Ruiz et al., arXiv:2208.12242,
section 4. Here they stay latents: what the base drew is what the UNet is held to, and no VAE
stands in between.
"""

from collections.abc import Generator

import torch
from torch import Tensor

from core.diffusion import conditioning, sampling
from core.diffusion.components import Components
from core.diffusion.latents import Moments
from core.specs import FineTuneSpec
from core.training import draws
from core.training.data import Examples
from core.training.lesson import Lesson
from core.training.report import StepReport

STEPS = 25
GUIDANCE = 5.0
"""Of the drawings: those of a sample."""


def draw(
    spec: FineTuneSpec, components: Components, side: int, report: StepReport
) -> Generator[StepReport, None, Lesson]:
    """Yields ``report`` at each denoising step; returns what they teach.

    Args:
        spec: with ``prior`` and ``class_prompt``.
        components: the base, with no adapter on it.
        side: of the pictures, in pixels.
    """
    assert spec.prior is not None, "the spec asks for class pictures"
    assert spec.class_prompt is not None, "and names the class"
    prompt = conditioning.encode_prompt(components, spec.class_prompt)
    negative = conditioning.encode_negative(components, None)
    drawn: list[Tensor] = []
    for number in range(spec.prior.images):
        for latents_1CHW in sampling.denoise(  # noqa: B007 - the last is the picture
            components,
            prompt=prompt,
            negative=negative,
            scheduler="euler",
            steps=STEPS,
            guidance=GUIDANCE,
            height=side,
            width=side,
            generator=draws.generator(spec.seed or 0, "class picture", number),
        ):
            yield report
        drawn.append(latents_1CHW.float())
    mean_NCHW = torch.cat(drawn)
    time_ids_16 = conditioning.time_ids(
        original_hw=(side, side), crop_top_left=(0, 0), target_hw=(side, side)
    )
    return Lesson(
        examples=Examples(
            moments=Moments(mean_NCHW, torch.zeros_like(mean_NCHW)),
            time_ids_N6=time_ids_16.to(components.device).repeat(len(drawn), 1),
            pictures=len(drawn),
        ),
        prompt=prompt,
        name="class",
    )
