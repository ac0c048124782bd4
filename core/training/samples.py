"""Pictures drawn while training runs, from seeds that never change, so that they compare."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from core.diffusion import conditioning, latents, sampling
from core.diffusion.components import Components
from core.diffusion.conditioning import Conditioning
from core.diffusion.offload import moved
from core.files.atomic import replacing
from core.specs import MAX_SEED, FineTuneSpec, SampleSpec
from core.training.report import SamplePicture, StepReport


@dataclass(frozen=True)
class Studio:
    """What the pictures are drawn from; ``prompts`` are the sample's, encoded."""

    components: Components
    sample: SampleSpec
    prompts: list[Conditioning]
    negative: Conditioning
    seed: int
    side: int

    def draw(self, report: StepReport, folder: Path) -> Iterator[StepReport]:
        """Yields at each denoising step, the last time with the pictures."""
        report = replace(report, message="sampling", loss=None)
        drawn: list[SamplePicture] = []
        for number, text in enumerate(self.sample.prompts):
            seed = (self.seed + number) % (MAX_SEED + 1)
            for latents_1CHW in self._denoise(self.prompts[number], seed):  # noqa: B007 - the last
                yield report
            path = folder / f"step-{report.step:06d}-{number}.png"
            self._save(latents_1CHW, path)
            drawn.append(SamplePicture(path, text, seed, report.step))
        yield replace(report, samples=tuple(drawn))

    def _denoise(self, prompt: Conditioning, seed: int) -> Iterator[Tensor]:
        return sampling.denoise(
            self.components,
            prompt=prompt,
            negative=self.negative,
            scheduler="euler",
            steps=self.sample.steps,
            guidance=self.sample.guidance,
            height=self.side,
            width=self.side,
            generator=torch.Generator().manual_seed(seed),
        )

    def _save(self, latents_1CHW: Tensor, path: Path) -> None:
        vae = self.components.vae
        with moved(self.components.device, vae), replacing(path) as aside:
            latents.to_image(latents.decode(vae, latents_1CHW)[0]).save(aside, format="PNG")


def studio(spec: FineTuneSpec, components: Components, side: int) -> Studio | None:
    """None where the spec wants no samples. Needs the text encoders on the device."""
    if spec.sample is None:
        return None
    return Studio(
        components=components,
        sample=spec.sample,
        prompts=[conditioning.encode_prompt(components, text) for text in spec.sample.prompts],
        negative=conditioning.encode_negative(components, None),
        seed=spec.seed or 0,
        side=side,
    )
