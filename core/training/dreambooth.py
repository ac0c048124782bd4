"""DreamBooth with a LoRA: a handful of pictures and a rare word that comes to mean them.

Needs the base in memory, and as much again for activations. Writes
``pytorch_lora_weights.safetensors``, ``report.json`` and the pictures drawn on the way. Captions
and resuming are not here yet.
Ruiz et al., arXiv:2208.12242; prior preservation is its section 4.
"""

import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from core.diffusion import conditioning, latents, lora, noise, sampling
from core.diffusion.components import Components
from core.diffusion.lora import Lora
from core.diffusion.lora_file import FILE_NAME
from core.diffusion.losses import mse_per_sample
from core.diffusion.noise import ForwardProcess
from core.errors import OutOfMemory
from core.files import atomic
from core.files.atomic import replacing
from core.specs import MAX_SEED, FineTuneSpec, SampleSpec
from core.training import class_pictures, data, draws, loop
from core.training.data import EncodedView
from core.training.lesson import Batch, Lesson
from core.training.precision import deterministic_algorithms
from core.training.report import SamplePicture, StepReport

GRID_TIMESTEPS = (100, 300, 500, 700, 900)
"""Of the fixed grid: the middle of each fifth of the process."""
GRID_PICTURES = 20
"""The first so many are enough to compare by."""
GRID_SEED = 0
"""Not the run's, so that runs compare."""


def train(
    spec: FineTuneSpec, components: Components, pictures: Sequence[Path], out: Path
) -> Generator[StepReport, None, None]:
    """Yields at each step, at each denoising step of a sample, and while preparing and checking.

    The components are as they were when the generator ends, however it ends.

    Args:
        spec: what to do; ``seed`` None counts as 0.
        components: the base. Only its UNet is trained, by a LoRA beside it.
        pictures: at least one, of any size.
        out: folder that the files go to.

    Raises:
        NonFiniteLoss: names the step.
        ExportMismatch: the LoRA that was written is not the one that was trained.
        OutOfMemory: the device has not enough.
    """
    try:
        with (
            deterministic_algorithms(spec.deterministic),
            _checkpointing(components.unet, _wants_checkpointing(spec, components.device)),
        ):
            yield from _train(spec, components, pictures, out)
    except torch.OutOfMemoryError as full:
        raise OutOfMemory(
            f"{components.device} is out of memory: lower `batch_size` or `resolution`, "
            "or set `gradient_checkpointing` to true"
        ) from full


def _train(
    spec: FineTuneSpec, components: Components, pictures: Sequence[Path], out: Path
) -> Iterator[StepReport]:
    now = StepReport(step=0, steps=spec.count_steps(len(pictures)), message="encoding pictures")
    course = yield from _prepare(spec, components, pictures, now)
    now = replace(now, message="measuring the base")
    before = yield from course.fixed_grid_loss(now)
    with course.lora.attached(components.unet):
        losses, now = yield from course.learn(now, out)
        now = replace(now, loss=None, message="measuring the LoRA")
        after = yield from course.fixed_grid_loss(now)
    now = replace(now, message="checking the export")
    yield now
    lora_path, report_path = out / FILE_NAME, out / "report.json"
    course.lora.save(lora_path, trigger=spec.trigger)
    lora.check_export(course.lora, lora_path, components)
    summary = {
        "base": spec.base,
        "spec": spec.model_dump(mode="json"),
        "seed": spec.seed or 0,
        "steps": now.steps,
        "losses": losses,
        "fixed_grid_loss": {"before": before, "after": after},
        "seconds_per_step": now.seconds_per_step,
        "device": str(components.device),
        "precision": str(components.dtype).removeprefix("torch."),
        "versions": {name: version(name) for name in ("torch", "diffusers", "transformers")},
    }
    atomic.write_text(report_path, json.dumps(summary, indent=2))
    yield replace(now, message="done", outputs={"lora": lora_path, "report": report_path})


@dataclass(frozen=True)
class Course:
    """All that a step needs, on the device."""

    spec: FineTuneSpec
    components: Components
    instance: Lesson
    prior: Lesson | None
    process: ForwardProcess
    lora: Lora

    def learn(
        self, report: StepReport, out: Path
    ) -> Generator[StepReport, None, tuple[list[tuple[int, float]], StepReport]]:
        """Yields at each step and each step of a sample; returns the losses read, by step, and the
        last step's report."""
        losses: list[tuple[int, float]] = []
        parameters = list(self.lora.parameters())
        for progress in loop.run(parameters, self.micro_loss, self.spec, report.steps):
            report = StepReport(
                step=progress.step,
                steps=report.steps,
                message="training",
                loss=progress.loss,
                learning_rate=progress.learning_rate,
                seconds_per_step=progress.seconds_per_step,
            )
            if progress.loss is not None:
                losses.append((progress.step, progress.loss))
            yield report
            if _wants_samples(self.spec, report.step, report.steps):
                yield from self.draw_samples(replace(report, loss=None), out)
        return losses, report

    def micro_loss(self, step: int, micro: int) -> Tensor:
        """Mean loss of one micro-batch, a scalar that asks the LoRA for gradients."""
        spec, seed = self.spec, self.spec.seed or 0
        first = (step * spec.accumulation + micro) * spec.batch_size
        ordinals = range(first, first + spec.batch_size)
        if spec.lora.dropout:
            # The one draw that torch makes by itself.
            torch.manual_seed(draws.derived_seed(seed, "dropout", first))
        instance = self._batch(self.instance, ordinals)
        if self.prior is None:
            return self._losses(instance).mean()
        assert spec.prior is not None, "a prior lesson comes of a prior in the spec"
        both = instance.beside(self._batch(self.prior, ordinals))
        instance_B, class_B = self._losses(both).chunk(2)
        return instance_B.mean() + spec.prior.weight * class_B.mean()

    def fixed_grid_loss(self, report: StepReport) -> Generator[StepReport, None, float]:
        """Yields ``report`` now and then; returns the mean loss on a fixed grid.

        The first view of each picture, at its mean, with each of ``GRID_TIMESTEPS`` and noise that
        is the same in every run. One at a time, so it needs no more memory than a step does.
        """
        self.lora.eval()
        pictures = min(self.instance.examples.pictures, GRID_PICTURES)
        total = 0.0
        for cell in range(pictures * len(GRID_TIMESTEPS)):
            picture, column = divmod(cell, len(GRID_TIMESTEPS))
            total += self._grid_cell(cell, picture, GRID_TIMESTEPS[column])
            yield report
        self.lora.train()
        return total / (pictures * len(GRID_TIMESTEPS))

    def draw_samples(self, report: StepReport, out: Path) -> Iterator[StepReport]:
        """Yields at each denoising step, the last time with the pictures; seeds never change."""
        sample = self.spec.sample
        assert sample is not None, "only called where samples are wanted"
        self.lora.eval()
        report = replace(report, message="sampling")
        drawn: list[SamplePicture] = []
        for number, prompt in enumerate(sample.prompts):
            seed = ((self.spec.seed or 0) + number) % (MAX_SEED + 1)
            for latents_1CHW in self._denoise(sample, prompt, seed):  # noqa: B007 - the last is it
                yield report
            path = out / "samples" / f"step-{report.step:06d}-{number}.png"
            pixels_1CHW = latents.decode(self.components.vae, latents_1CHW)
            with replacing(path) as aside:
                latents.to_image(pixels_1CHW[0]).save(aside, format="PNG")
            drawn.append(SamplePicture(path, prompt, seed, report.step))
        self.lora.train()
        yield replace(report, samples=tuple(drawn))

    @torch.no_grad()
    def _grid_cell(self, cell: int, picture: int, timestep: int) -> float:
        row_B = torch.tensor([picture * self.instance.examples.views_per_picture])
        clean_BCHW = self.instance.moments(self._on_device(row_B)).mean_BCHW
        noise_BCHW = draws.normal(GRID_SEED, "grid", [cell], tuple(clean_BCHW.shape[1:]))
        return self._losses(
            self.instance.batch(
                self._on_device(row_B),
                clean_BCHW,
                self._on_device(noise_BCHW),
                self._on_device(torch.tensor([timestep])),
            )
        ).item()

    def _denoise(self, sample: SampleSpec, prompt: str, seed: int) -> Iterator[Tensor]:
        side = self.spec.resolution or self.components.native_size
        return sampling.denoise(
            self.components,
            prompt=conditioning.encode_prompt(self.components, prompt),
            negative=conditioning.encode_negative(self.components, None),
            scheduler="euler",
            steps=sample.steps,
            guidance=sample.guidance,
            height=side,
            width=side,
            generator=torch.Generator().manual_seed(seed),
        )

    def _batch(self, lesson: Lesson, ordinals: Sequence[int]) -> Batch:
        """What the samples of these ordinals show, with noise and timesteps of their own."""
        seed, shape = self.spec.seed or 0, lesson.latent_shape
        rows_B = self._on_device(lesson.rows(seed, ordinals))
        posterior_BCHW = draws.normal(seed, lesson.purpose("posterior"), ordinals, shape)
        noise_BCHW = draws.normal(seed, lesson.purpose("noise"), ordinals, shape)
        timesteps_B = draws.choices(
            seed, lesson.purpose("timestep"), ordinals, self.process.timesteps
        )
        return lesson.batch(
            rows_B,
            lesson.moments(rows_B).sample(self._on_device(posterior_BCHW)),
            self._on_device(noise_BCHW),
            self._on_device(timesteps_B),
        )

    def _losses(self, batch: Batch) -> Tensor:
        """The UNet's error for each sample, shape (B,), float32."""
        clean_BCHW, noise_BCHW, timesteps_B = batch.clean_BCHW, batch.noise_BCHW, batch.timesteps_B
        noisy_BCHW = self.process.add_noise(clean_BCHW, noise_BCHW, timesteps_B)
        predicted_BCHW = self.components.unet(
            noisy_BCHW.to(self.components.dtype),
            timesteps_B,
            encoder_hidden_states=batch.text_BLD,
            added_cond_kwargs={"text_embeds": batch.pooled_BP, "time_ids": batch.time_ids_B6},
        ).sample
        target_BCHW = self.process.target(clean_BCHW, noise_BCHW, timesteps_B)
        return mse_per_sample(predicted_BCHW, target_BCHW)

    def _on_device(self, drawn: Tensor) -> Tensor:
        return drawn.to(self.components.device, non_blocking=True)


def _prepare(
    spec: FineTuneSpec, components: Components, pictures: Sequence[Path], report: StepReport
) -> Generator[StepReport, None, Course]:
    """Yields ``report`` after each picture, and at each step of drawing class pictures."""
    side = spec.resolution or components.native_size
    views: list[EncodedView] = []
    for number, path in enumerate(pictures):
        views += data.encode_views(path, number, spec, components, side)
        yield report
    prior = None
    if spec.prior:
        drawing = replace(report, message="drawing class pictures")
        prior = yield from class_pictures.draw(spec, components, side, drawing)
    return Course(
        spec=spec,
        components=components,
        instance=Lesson(
            examples=data.gather(views, len(pictures)),
            prompt=conditioning.encode_prompt(components, spec.instance_prompt),
        ),
        prior=prior,
        process=noise.forward_process(components.scheduler.config, components.device),
        lora=Lora(components.unet, spec.lora, seed=draws.derived_seed(spec.seed or 0, "lora", 0)),
    )


@contextmanager
def _checkpointing(unet: UNet2DConditionModel, wanted: bool) -> Iterator[None]:
    """Inside, activations of the UNet's blocks are computed again in place of being kept."""
    if wanted:
        unet.enable_gradient_checkpointing()
    try:
        yield
    finally:
        if wanted:
            unet.disable_gradient_checkpointing()


def _wants_checkpointing(spec: FineTuneSpec, device: torch.device) -> bool:
    if spec.gradient_checkpointing == "auto":
        return device.type == "cuda"
    return spec.gradient_checkpointing


def _wants_samples(spec: FineTuneSpec, step: int, steps: int) -> bool:
    return spec.sample is not None and (step % spec.sample.every == 0 or step == steps)
