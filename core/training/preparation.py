"""What a fine-tune needs before its first step, from its pictures to its course."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

from torch import nn

from core.diffusion import noise
from core.diffusion.components import Components
from core.diffusion.lora import Lora
from core.errors import DatasetNotCaptioned
from core.ladder import Rung
from core.specs import FineTuneSpec
from core.training import class_pictures, draws, samples
from core.training.batches import Batches
from core.training.cache import Cache
from core.training.course import Course
from core.training.data import Source
from core.training.desk import Desk
from core.training.grid import Grid
from core.training.lesson import Lesson
from core.training.report import StepReport
from core.training.samples import Studio
from core.training.shelf import Shelf


@dataclass(frozen=True)
class Prepared:
    """``idle`` are modules that no step needs."""

    course: Course
    grid: Grid
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
    desk = Desk(spec, components, sources, cache, report, rung)
    texts = [_text(spec, source) for source in sources]
    classes = [spec.class_prompt] if spec.class_prompt else []
    numbers = {text: number for number, text in enumerate(dict.fromkeys([*texts, *classes]))}
    class_words = numbers[spec.class_prompt] if spec.class_prompt else None
    instance = yield from desk.lesson(texts, numbers)
    prior = None
    if spec.prior and spec.prior.images and class_words is not None:
        drawn = yield from _class_views(desk, spec, spec.prior.images)
        count = spec.prior.images
        prior = Lesson(drawn, instance.words, range(count), [class_words] * count, name="class")
    cache.sweep()
    process = noise.forward_process(components.scheduler.config, components.device)
    batches = Batches(spec, process, components.device, spec.noise_offset)
    lora = Lora(components.unet, spec.lora, seed=draws.derived_seed(spec.seed or 0, "lora", 0))
    studio = None
    if spec.sample:
        studio = samples.studio(spec.sample, components, seed=spec.seed or 0, side=desk.side)
    return Prepared(
        course=Course(spec, batches, components.unet, lora, instance, prior, class_words),
        grid=Grid(instance, batches, desk.kept_out),
        studio=studio,
        idle=desk.idle,
    )


def _text(spec: FineTuneSpec, source: Source) -> str:
    """What a picture is learnt with."""
    text = spec.instance_prompt or source.caption
    if text is None:
        raise DatasetNotCaptioned(
            f"The picture {source.name} has no caption: give it one, or the job an "
            "`instance_prompt`."
        )
    return text


def _class_views(desk: Desk, spec: FineTuneSpec, count: int) -> Generator[StepReport, None, Shelf]:
    """A shelf of class pictures, drawn if nobody has drawn them before."""
    assert spec.class_prompt, "a prior has one"
    drawing = replace(desk.report, message="drawing class pictures")
    keys = yield from class_pictures.draw(
        desk.components, spec.class_prompt, count, desk.side, desk.cache, drawing
    )
    return desk.shelf(lambda number: desk.cache.read(keys[number]))
