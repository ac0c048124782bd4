"""All that a run needs once: pictures and words encoded, class pictures drawn."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from core.diffusion import noise
from core.diffusion.components import Components
from core.diffusion.identity import identity
from core.diffusion.lora import Lora
from core.diffusion.offload import moved
from core.errors import DatasetNotCaptioned
from core.estimate import ROWS_BYTES
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
    side = spec.resolution or components.native_size
    texts = [_text(spec, source) for source in sources]
    fits = len(sources) * _bytes(spec, components, side) <= cache.cap_bytes
    classes = [spec.class_prompt] if spec.class_prompt else []
    number_of = {text: number for number, text in enumerate(dict.fromkeys([*texts, *classes]))}
    room_bytes = ROWS_BYTES if rung.rows_on_device else 0
    with moved(CPU, *([components.unet] if rung.checkpointing else [])):
        if fits:
            read = yield from _cached_views(spec, components, sources, side, cache, report)
        else:
            yield replace(report, note="the pictures outgrow the cache: each step encodes its own")
            read = partial(_encode_view, spec, components, sources, side)
        words = _words(components, list(number_of), cache, room_bytes)
    views = Shelf(read, components.device, room_bytes)
    prior = None
    if spec.prior and spec.prior.images:
        drawing = replace(report, message="drawing class pictures")
        keys = yield from class_pictures.draw(
            components, classes[0], spec.prior.images, side, cache, drawing
        )
        prior = Lesson(
            views=Shelf(lambda number: cache.read(keys[number]), components.device, room_bytes),
            words=words,
            pictures=range(len(keys)),
            words_of=[number_of[classes[0]]] * len(keys),
            name="class",
        )
    cache.sweep()
    kept_out = measure.held_out(len(sources))
    course = Course(
        spec=spec,
        components=components,
        process=noise.forward_process(components.scheduler.config, components.device),
        lora=Lora(components.unet, spec.lora, seed=draws.derived_seed(spec.seed or 0, "lora", 0)),
        instance=Lesson(
            views=views,
            words=words,
            pictures=sorted(set(range(len(sources))) - set(kept_out)),
            words_of=[number_of[text] for text in texts],
            views_per_picture=spec.views_per_picture,
            dropout=spec.caption_dropout,
        ),
        prior=prior,
        class_words=number_of[spec.class_prompt] if spec.class_prompt else None,
    )
    idle: list[nn.Module] = [components.text_encoder, components.text_encoder_2]
    return Prepared(
        course=course,
        kept_out=kept_out,
        studio=samples.studio(spec, components, side),
        idle=[*idle, components.vae] if fits else idle,
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


def _bytes(spec: FineTuneSpec, components: Components, side: int) -> int:
    """Of one picture's row of views: two float32 a cell of the latents."""
    cells = components.vae.config.latent_channels * (side // components.latent_factor) ** 2
    return spec.views_per_picture * int(cells) * 2 * 4


def _cached_views(
    spec: FineTuneSpec,
    components: Components,
    sources: Sequence[Source],
    side: int,
    cache: Cache,
    report: StepReport,
) -> Generator[StepReport, None, Callable[[int], Row]]:
    """What reads a row by the picture's number."""
    base = identity(components, "vae")
    keys = []
    for number, source in enumerate(sources):
        key = key_of(
            what="views",
            base=base,
            picture=source.sha256,
            side=side,
            flip=spec.flip,
            # random crops are drawn by the picture's number
            crop=[spec.crop_variants, spec.seed, number] if spec.crop == "random" else "center",
        )
        keys.append(key)
        if not cache.take(key):
            cache.put(key, data.encode_views(source.path, number, spec, components, side))
        yield report
    return lambda number: cache.read(keys[number])


def _encode_view(
    spec: FineTuneSpec, components: Components, sources: Sequence[Source], side: int, number: int
) -> Row:
    return data.encode_views(sources[number].path, number, spec, components, side)


def _words(
    components: Components, vocabulary: Sequence[str], cache: Cache, room_bytes: int
) -> Shelf:
    """A shelf of the vocabulary's texts by their places, and of nothing."""
    base = identity(components, *ENCODERS)
    keys = [key_of(what="caption", base=base, text=text) for text in vocabulary]
    for key, text in zip(keys, vocabulary, strict=True):
        if not cache.take(key):
            cache.put(key, captions.encode(components, text))
    nothing = captions.nothing(components)
    return Shelf(
        lambda number: nothing if number == NOTHING else cache.read(keys[number]),
        components.device,
        room_bytes,
    )
