"""What a run needs once of its pictures and their words: encoded, kept, at hand by number."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import nn

from core.diffusion.components import Components
from core.diffusion.identity import identity
from core.diffusion.offload import moved
from core.estimate import ROWS_BYTES, row_bytes
from core.ladder import Rung
from core.specs import TrainingSpec
from core.training import captions, data
from core.training.cache import Cache, key_of
from core.training.captions import NOTHING
from core.training.data import Source
from core.training.grid import held_out
from core.training.lesson import Lesson
from core.training.report import StepReport
from core.training.shelf import Row, Shelf

CPU = torch.device("cpu")
ENCODERS = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")


@dataclass(frozen=True)
class Desk:
    """What everything that is encoded has in common."""

    spec: TrainingSpec
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

    @cached_property
    def kept_out(self) -> list[int]:
        """Pictures that are not learnt."""
        return held_out(len(self.sources))

    def lesson(
        self, texts: Sequence[str], numbers: Mapping[str, int]
    ) -> Generator[StepReport, None, Lesson]:
        """What the pictures teach. Yields the report after each.

        Args:
            texts: what each picture is learnt with.
            numbers: of all texts of the run, from 0: their places on the shelf of words.
        """
        with moved(CPU, *([self.components.unet] if self.rung.checkpointing else [])):
            views = yield from self._views()
            words = self._words(list(numbers))
        return Lesson(
            views=views,
            words=words,
            pictures=sorted({*range(len(self.sources))} - {*self.kept_out}),
            words_of=[numbers[text] for text in texts],
            views_per_picture=self.spec.views_per_picture,
            dropout=self.spec.caption_dropout,
        )

    def shelf(self, read: Callable[[int], Row]) -> Shelf:
        """Of rows that ``read`` gives, as much of it on the device as this rung allows."""
        room_bytes = ROWS_BYTES if self.rung.rows_on_device else 0
        return Shelf(read, self.components.device, room_bytes)

    def _views(self) -> Generator[StepReport, None, Shelf]:
        """A shelf of the pictures' views by their numbers."""
        if self.fits:
            keys = yield from self._cached_views()
            return self.shelf(lambda number: self.cache.read(keys[number]))
        note = "the pictures outgrow the cache: each step encodes its own"
        yield replace(self.report, note=note)
        return self.shelf(self._encode)

    def _words(self, vocabulary: Sequence[str]) -> Shelf:
        """A shelf of the vocabulary's texts by their places, and of nothing."""
        base = identity(self.components, *ENCODERS)
        keys = [key_of(what="caption", base=base, text=text) for text in vocabulary]
        for key, text in zip(keys, vocabulary, strict=True):
            if not self.cache.take(key):
                self.cache.put(key, captions.encode(self.components, text))
        nothing = captions.nothing(self.components)
        return self.shelf(
            lambda number: nothing if number == NOTHING else self.cache.read(keys[number])
        )

    def _encode(self, number: int) -> Row:
        picture = self.sources[number].open()
        return data.encode_views(picture, number, self.spec, self.components, self.side)

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
