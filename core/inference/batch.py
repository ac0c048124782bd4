"""Rows that are drawn at once, whichever requests they are of."""

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import torch
from torch import Tensor

from core.diffusion import latents, sampling
from core.diffusion.components import Components
from core.diffusion.conditioning import Conditioning
from core.diffusion.sampling import Beginning
from core.errors import JobFailure, OutOfMemory
from core.estimate import TOKENS
from core.full_memory import is_full_memory
from core.inference import adapters, picture_file
from core.inference.adapters import Stack
from core.inference.picture_file import Making
from core.inference.request import Failure, Picture, Progress, Request


@dataclass(frozen=True)
class Row:
    """A picture to be: its request, what it is drawn from, and how."""

    number: int
    request: Request
    index: int
    prompt: str
    seed: int
    stack: Stack
    texts: tuple[Conditioning, Conditioning]
    beginning: Beginning | None

    @property
    def chunks(self) -> int:
        """Of its texts."""
        return self.texts[0].text_1LD.shape[1] // TOKENS

    @property
    def kind(self) -> tuple[object, ...]:
        """What rows have in common that can be drawn at once."""
        spec = self.request.spec
        strength = spec.image.strength if spec.image else None
        guided = spec.guidance > 1
        return (
            self.chunks,
            guided,
            spec.width,
            spec.height,
            spec.steps,
            spec.scheduler,
            strength or 0.0,
        )

    def noisy(self) -> sampling.Row:
        """With noise that nothing was drawn from yet."""
        generator = torch.Generator().manual_seed(self.seed)
        return sampling.Row(*self.texts, self.request.spec.guidance, generator, self.beginning)


class _Tally:
    """Of the requests that have rows in a batch: how far each is with all of its pictures."""

    def __init__(self, rows: Sequence[Row], drawn: Mapping[int, int]) -> None:
        self.step = 0
        self.together = Counter(row.number for row in rows)
        """How many rows of each request."""
        self._requests = {row.number: row.request for row in rows}
        self._drawn = dict(drawn)

    def progress(self, number: int, picture: Picture | None = None) -> Progress:
        request, together = self._requests[number], self.together[number]
        each = request.spec.denoising_steps
        taken = self._drawn.get(number, 0) * each + together * self.step
        return Progress(number, taken, request.count * each, together, picture)


class Batch:
    """Draws rows that are of one kind, and keeps count of their requests'."""

    def __init__(
        self,
        components: Components,
        is_wanted: Callable[[int], bool],
        make_room: Callable[[], None],
    ) -> None:
        """``make_room`` is called once, when memory does not hold a single row."""
        self.components = components
        self.is_wanted = is_wanted
        self.make_room = make_room
        self._has_made_room = False
        self._failed: set[int] = set()
        self._drawn: set[tuple[int, int]] = set()
        """Requests and indices of pictures that are on disk."""

    def draw(self, rows: Sequence[Row]) -> Iterator[Progress | Failure]:
        """All at once; where memory is short half as many, and half of those."""
        at_once = len(rows)
        while left := [row for row in rows if self._is_due(row)]:
            some, is_full = left[:at_once], False
            try:
                yield from self._draw(some)
            except Exception as error:
                if not is_full_memory(error):
                    raise
                is_full = True  # let go of its traceback, which holds what is to be freed, first
            if is_full and len(some) > 1:
                at_once = len(some) // 2
            elif is_full and self._has_made_room:
                yield self._fail(some[0], _no_room(self.components.device))
            elif is_full:
                self._has_made_room = True
                self.make_room()

    def _is_due(self, row: Row) -> bool:
        is_drawn = (row.number, row.index) in self._drawn
        return not is_drawn and row.number not in self._failed and self.is_wanted(row.number)

    def _fail(self, row: Row, error: Exception) -> Failure:
        self._failed.add(row.number)
        return Failure(row.number, error)

    def _draw(self, rows: Sequence[Row]) -> Iterator[Progress | Failure]:
        tally = _Tally(rows, Counter(number for number, _ in self._drawn))
        latents_NCHW = yield from self._denoise(rows, tally)
        for row, latents_1CHW in zip(rows, torch.split(latents_NCHW, 1), strict=True):
            if not self._is_due(row):
                continue
            try:
                picture = self._finish(row, latents_1CHW)
            except Exception as error:
                if is_full_memory(error):
                    raise  # to be tried again
                yield self._fail(row, error)
            else:
                self._drawn.add((row.number, row.index))
                yield tally.progress(row.number, picture)

    def _denoise(self, rows: Sequence[Row], tally: _Tally) -> Generator[Progress, None, Tensor]:
        spec = rows[0].request.spec
        assert spec.width, "filled in"
        assert spec.height
        steps = sampling.denoise(
            self.components,
            [row.noisy() for row in rows],
            scheduler=spec.scheduler,
            steps=spec.steps,
            height=spec.height,
            width=spec.width,
        )
        copies = 2 if spec.guidance > 1 else 1
        stacks = [row.stack for row in rows]
        with closing(steps), adapters.applied(stacks, copies=copies):
            for latents_NCHW in steps:  # noqa: B007 - the last are the pictures'
                tally.step += 1
                yield from (tally.progress(number) for number in tally.together)
                if not any(self._is_due(row) for row in rows):
                    break
        return latents_NCHW

    def _finish(self, row: Row, latents_1CHW: Tensor) -> Picture:
        """Decodes one and writes it: of pixels there is never more than one picture's worth.

        Raises:
            JobFailure: it is no number.
        """
        if not latents_1CHW.isfinite().all():
            raise _no_number()
        pixels_1CHW = latents.decode(self.components.vae, latents_1CHW)
        if not pixels_1CHW.isfinite().all():
            raise _no_pixels(self.components.dtype)
        spec, request = row.request.spec, row.request
        suffix = {"jpeg": "jpg"}.get(spec.format, spec.format)
        path = request.out / f"{row.index:04d}-{row.seed}.{suffix}"
        making = Making(
            spec=spec,
            prompt=row.prompt,
            seed=row.seed,
            dtype=self.components.dtype,
            loras=[(lora.sha256, lora.weight) for lora in request.loras],
            start_sha256=request.start.sha256 if request.start else None,
        )
        picture_file.write(path, latents.to_image(pixels_1CHW[0]), making)
        return Picture(path, row.prompt, row.seed, row.index)


def _no_room(device: torch.device) -> OutOfMemory:
    return OutOfMemory(f"{device} is out of memory: ask for a smaller `width` and `height`")


def _no_number() -> JobFailure:
    return JobFailure(
        "A picture came out as no number: lower the LoRAs' weights or `guidance`, or ask for "
        '`precision` "fp32".',
        code="non_finite_picture",
    )


def _no_pixels(dtype: torch.dtype) -> JobFailure:
    """SDXL's own VAE is known for it in half precision, whose largest number is 65,504."""
    name = str(dtype).removeprefix("torch.")
    return JobFailure(
        f"The base's VAE made no number of a picture in {name}, which its own numbers are too "
        'large for: ask for `precision` "bf16" or "fp32", or for a base with another VAE.',
        code="non_finite_picture",
    )
