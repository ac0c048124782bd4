"""Prior preservation: pictures of the class as the base draws it, learnt beside the subject.

They keep the class what it was while one member of it gets a name. Ruiz et al., arXiv:2208.12242,
section 4. Here they stay latents: what the base drew is what the UNet is held to, and no VAE
stands in between. They do not depend on the run's seed, so runs with one class share them.
"""

from collections.abc import Generator
from contextlib import closing

import torch
from torch import Tensor

from core.diffusion import conditioning, sampling
from core.diffusion.components import Components
from core.diffusion.identity import identity
from core.training import draws
from core.training.cache import Cache, key_of
from core.training.report import StepReport
from core.training.shelf import Row

SEED = 0
STEPS = 25
GUIDANCE = 5.0
"""Of the drawings: those of a sample."""
PARTS = ("unet", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler")


def draw(
    components: Components, prompt: str, count: int, side: int, cache: Cache, report: StepReport
) -> Generator[StepReport, None, list[str]]:
    """Yields ``report`` at each denoising step; returns the keys of the rows, which are those of
    ``data.encode_views`` with one view each.

    Args:
        components: the base, with no adapter on it.
        prompt: names the class.
        count: of the pictures.
        side: of the pictures, in pixels.
        cache: may hold them already.
    """
    base = identity(components, *PARTS)
    keys = []
    for number in range(count):
        key = key_of(
            what="class picture",
            base=base,
            prompt=prompt,
            side=side,
            number=number,
            drawing=[SEED, STEPS, GUIDANCE],
        )
        keys.append(key)
        if not cache.take(key):
            latents_1CHW = yield from _draw_one(components, prompt, number, side, report)
            cache.put(key, _row(latents_1CHW, side))
    return keys


def _draw_one(
    components: Components, prompt: str, number: int, side: int, report: StepReport
) -> Generator[StepReport, None, Tensor]:
    row = sampling.Row(
        prompt=conditioning.encode_prompt(components, prompt),
        negative=conditioning.encode_negative(components, None),
        guidance=GUIDANCE,
        generator=draws.generator(SEED, "class picture", number),
    )
    steps = sampling.denoise(
        components, [row], scheduler="euler", steps=STEPS, height=side, width=side
    )
    with closing(steps):
        for latents_1CHW in steps:  # noqa: B007 - the last is the picture
            yield report
    return latents_1CHW


def _row(latents_1CHW: Tensor, side: int) -> Row:
    mean_1CHW = latents_1CHW.float().contiguous()
    time_ids_16 = conditioning.time_ids(
        original_hw=(side, side), crop_top_left=(0, 0), target_hw=(side, side)
    )
    return {"mean": mean_1CHW, "std": torch.zeros_like(mean_1CHW), "time_ids": time_ids_16}
