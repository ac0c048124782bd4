"""All that a run needs once: pictures and words encoded, class pictures drawn."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from core.diffusion import noise
from core.diffusion.components import Components
from core.diffusion.identity import identity
from core.diffusion.lora import Lora
from core.diffusion.offload import moved
from core.errors import DatasetNotCaptioned
from core.estimate import ROWS_BYTES, row_bytes
from core.ladder import Rung
from core.specs import FineTuneSpec
from core.training import captions, class_pictures, data, draws, measure, samples
from core.training.cache import Cache, key_of
from core.training.captions import NOTHING
from core.training.course import Course
from core.training.data import Source
from core.training.lesson import Lesson
from core.training.report import StepReport
from core.training.samples import Studio
from core.training.shelf import Row, Shelf

CPU = torch.device("cpu")
ENCODERS = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")


@dataclass(frozen=True)
class Prepared:
    """``idle`` are modules that no step needs."""

    course: Course
    kept_out: list[int]
    studio: Studio | None
    idle: list[nn.Module]


def prepare(
    spec: FineTuneSpec,
    components: Components,
    sources: Sequence[Source],
    cache: Cache,
    report: StepReport,
    rung: Rung,
) -> Generator[StepReport, None, Prepared]:
    """Yields ``report`` after each picture, and at each step of drawing a class picture.

    Args:
        rung: of the ladder, for ``spec`` in its micro-batches.

    Raises:
        DatasetNotCaptioned: the spec has no prompt and a picture no caption.
    """
    desk = _Desk(spec, components, sources, cache, report, rung)
    texts = [_text(spec, source) for source in sources]
    classes = [spec.class_prompt] if spec.class_prompt else []
    number_of = {text: number for number, text in enumerate(dict.fromkeys([*texts, *classes]))}
    class_words = number_of[spec.class_prompt] if spec.class_prompt else None
    with moved(CPU, *([components.unet] if rung.checkpointing else [])):
        views = yield from desk.views()
        words = desk.words(list(number_of))
    prior = None
    if spec.prior and spec.prior.images and class_words is not None:
        drawn = yield from desk.class_views(spec.prior.images)
        numbers = range(spec.prior.images)
        prior = Lesson(drawn, words, numbers, [class_words] * len(numbers), name="class")
    cache.sweep()
    kept_out = measure.held_out(len(sources))
    instance = Lesson(
        views=views,
        words=words,
        pictures=sorted(set(range(len(sources))) - set(kept_out)),
        words_of=[number_of[text] for text in texts],
        views_per_picture=spec.views_per_picture,
        dropout=spec.caption_dropout,
    )
    process = noise.forward_process(components.scheduler.config, components.device)
    lora = Lora(components.unet, spec.lora, seed=draws.derived_seed(spec.seed or 0, "lora", 0))
    return Prepared(
        course=Course(spec, components, process, lora, instance, prior, class_words),
        kept_out=kept_out,
        studio=samples.studio(spec, components, desk.side),
        idle=desk.idle,
    )


def _text(spec: FineTuneSpec, source: Source) -> str:
    """What a picture is learnt with."""
    text = spec.instance_prompt or source.caption
    if text is None:
        raise DatasetNotCaptioned(
            f"The picture {source.path.name} has no caption: give it one, or the job an "
            "`instance_prompt`."
        )
    return text


@dataclass(frozen=True)
class _Desk:
    """What everything that is encoded has in common."""

    spec: FineTuneSpec
    components: Components
    sources: Sequence[Source]
    cache: Cache
    report: StepReport
    rung: Rung

    @property
    def side(self) -> int:
        return self.spec.resolution or self.components.native_size

    @property
    def fits(self) -> bool:
        """Whether the cache may hold all views."""
        views = len(self.sources) * self.spec.views_per_picture
        return views * row_bytes(self.side, self.components.latent_factor) <= self.cache.cap_bytes

    @property
    def idle(self) -> list[nn.Module]:
        """Modules that no step needs."""
        encoders: list[nn.Module] = [self.components.text_encoder, self.components.text_encoder_2]
        return [*encoders, self.components.vae] if self.fits else encoders

    def views(self) -> Generator[StepReport, None, Shelf]:
        """A shelf of the pictures' views by their numbers."""
        if self.fits:
            keys = yield from self._cached_views()
            return self._shelf(lambda number: self.cache.read(keys[number]))
        note = "the pictures outgrow the cache: each step encodes its own"
        yield replace(self.report, note=note)
        return self._shelf(self._encode)

    def words(self, vocabulary: Sequence[str]) -> Shelf:
        """A shelf of the vocabulary's texts by their places, and of nothing."""
        base = identity(self.components, *ENCODERS)
        keys = [key_of(what="caption", base=base, text=text) for text in vocabulary]
        for key, text in zip(keys, vocabulary, strict=True):
            if not self.cache.take(key):
                self.cache.put(key, captions.encode(self.components, text))
        nothing = captions.nothing(self.components)
        return self._shelf(
            lambda number: nothing if number == NOTHING else self.cache.read(keys[number])
        )

    def class_views(self, count: int) -> Generator[StepReport, None, Shelf]:
        """A shelf of class pictures, drawn if nobody has drawn them before."""
        assert self.spec.class_prompt, "a prior has one"
        drawing = replace(self.report, message="drawing class pictures")
        keys = yield from class_pictures.draw(
            self.components, self.spec.class_prompt, count, self.side, self.cache, drawing
        )
        return self._shelf(lambda number: self.cache.read(keys[number]))

    def _shelf(self, read: Callable[[int], Row]) -> Shelf:
        room_bytes = ROWS_BYTES if self.rung.rows_on_device else 0
        return Shelf(read, self.components.device, room_bytes)

    def _encode(self, number: int) -> Row:
        path = self.sources[number].path
        return data.encode_views(path, number, self.spec, self.components, self.side)

    def _cached_views(self) -> Generator[StepReport, None, list[str]]:
        """The keys of the views, all in the cache."""
        spec, base, keys = self.spec, identity(self.components, "vae"), []
        for number, source in enumerate(self.sources):
            key = key_of(
                what="views",
                base=base,
                picture=source.sha256,
                side=self.side,
                flip=spec.flip,
                # random crops are drawn by the picture's number
                crop=[spec.crop_variants, spec.seed, number] if spec.crop == "random" else "center",
            )
            keys.append(key)
            if not self.cache.take(key):
                self.cache.put(key, self._encode(number))
            yield self.report
        return keys
