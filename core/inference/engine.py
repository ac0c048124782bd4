"""Pictures from requests, several at a time.

The same request alone gives the same bytes on one device: noise is drawn on the CPU from each
picture's own seed. Rows of several requests may share a batch; pixels then differ by rounding.
What fails, fails for its own request.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import groupby

from PIL import Image, ImageOps
from torch import nn

from core.diffusion import latents, prompts
from core.diffusion.adapter import Adapter, Updates
from core.diffusion.components import Components
from core.diffusion.conditioning import Conditioning
from core.diffusion.picture import open_picture
from core.diffusion.sampling import Beginning
from core.estimate import MAX_ROWS
from core.full_memory import is_full_memory
from core.inference import adapters
from core.inference.adapters import Stack
from core.inference.batch import Batch, Row
from core.inference.lora_shelf import LoraShelf
from core.inference.memo import Memo
from core.inference.request import Failure, Lora, Progress, Request
from core.specs import MAX_SEED, GenerateSpec

_TEXT_BYTES = 128 * 1024**2
"""Of encoded prompts: some two hundred of SDXL's, with their negatives, in half precision."""
_STACK_BYTES = 512 * 1024**2
"""Of composed stacks, on the device: some ten of rank 16 for SSD-1B in half precision."""


class Engine:
    """Draws with one base."""

    def __init__(
        self,
        components: Components,
        shelf: LoraShelf,
        count_rows: Callable[[GenerateSpec, int, int], int],
        let_others_go: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Args:
            count_rows: for how many rows of such a request memory has room, at least one, if each
                has texts of so many chunks, and so many bytes of LoRAs besides.
            let_others_go: called when memory does not hold a single row.
        """
        self.components = components
        self.shelf = shelf
        self.count_rows = count_rows
        self.let_others_go = let_others_go
        self._texts: Memo[object, tuple[Conditioning, Conditioning]] = Memo(
            _TEXT_BYTES, _text_bytes
        )
        self._stacks: Memo[object, Stack] = Memo(_STACK_BYTES, adapters.bytes_of)

    @property
    def held_bytes(self) -> int:
        """On the device, between drawings."""
        return self.components.held_bytes + self._texts.held_bytes + self._stacks.held_bytes

    def forget(self) -> None:
        """What it keeps of requests that it has seen."""
        self._texts.clear()
        self._stacks.clear()

    def draw(
        self, requests: Sequence[Request], is_wanted: Callable[[int], bool] = lambda _: True
    ) -> Generator[Progress | Failure, None, None]:
        """Yields for each request after each denoising step and for each finished picture.

        ``is_wanted`` of a request's number is asked between steps. Closing the generator stops it
        there; the components are as they were in any case. Whatever goes wrong with one request, a
        LoRA that does not fit, a picture that is no number, memory that does not hold one row, is
        its ``Failure``.
        """
        batch = Batch(self.components, is_wanted, self._make_room)
        rows: list[Row] = []
        for number, request in enumerate(requests):
            try:
                rows += self._prepared(number, request)
            except Exception as error:
                yield Failure(number, error)
        for _, alike in groupby(sorted(rows, key=lambda row: row.kind), lambda row: row.kind):
            together = list(alike)
            count = min(MAX_ROWS, self._count(together))
            for first in range(0, len(together), count):
                yield from batch.draw(together[first : first + count])

    def _count(self, rows: Sequence[Row]) -> int:
        """How many at once. Where stacks differ, each row is padded to the largest."""
        stacks = {id(row.stack): row.stack for row in rows}
        padded_bytes = max(map(adapters.bytes_of, stacks.values())) if len(stacks) > 1 else 0
        return self.count_rows(rows[0].request.spec, rows[0].chunks, padded_bytes)

    def _make_room(self) -> None:
        self.forget()
        self.let_others_go()

    def _prepared(self, number: int, request: Request) -> list[Row]:
        try:
            return list(self._rows(number, request))
        except Exception as error:
            if not is_full_memory(error):
                raise
        self._make_room()
        return list(self._rows(number, request))

    def stack(self, loras: Sequence[Lora]) -> Stack:
        """What they are together, on the device.

        Raises:
            LayoutMismatch: one of them does not fit this base; names the module.
        """
        unet = self.components.unet
        return self._stacks.take(
            _key(loras),
            lambda: adapters.compose(
                [(adapter.unet, weight) for adapter, weight in self._read(loras)], unet
            ),
        )

    def _read(self, loras: Sequence[Lora]) -> list[tuple[Adapter, float]]:
        return [(self.shelf.take(lora.sha256, lora.path), lora.weight) for lora in loras]

    def _rows(self, number: int, request: Request) -> Iterator[Row]:
        """Raises LayoutMismatch."""
        spec, stack = request.spec, self.stack(request.loras)
        beginning = self._beginning(request)
        for row, prompt in enumerate(spec.prompts):
            texts = self._encoded(prompt, spec, request.loras)
            for image in range(spec.images):
                yield Row(
                    number=number,
                    request=request,
                    index=row * spec.images + image,
                    prompt=prompt,
                    seed=_seed(spec, image),
                    stack=stack,
                    texts=texts,
                    beginning=beginning,
                )

    def _encoded(
        self, prompt: str, spec: GenerateSpec, loras: Sequence[Lora]
    ) -> tuple[Conditioning, Conditioning]:
        """Both sides of guidance, read by the text encoders as the LoRAs change them. Where nothing
        is guided they are one: it would be lengthened to the length of what nobody looks at."""
        is_guided, negative_prompt = spec.guidance > 1, spec.negative_prompt
        read = self._read(loras)
        changes_texts = any(each.text_encoder or each.text_encoder_2 for each, _ in read)

        def encode() -> tuple[Conditioning, Conditioning]:
            first = [(each.text_encoder, weight) for each, weight in read]
            second = [(each.text_encoder_2, weight) for each, weight in read]
            with (
                self._changed(self.components.text_encoder, first),
                self._changed(self.components.text_encoder_2, second),
            ):
                if is_guided:
                    return prompts.encode_pair(self.components, prompt, negative_prompt)
                return (prompts.encode(self.components, prompt),) * 2

        sides = (prompt, negative_prompt) if is_guided else (prompt,)
        key = (sides, _key(loras) if changes_texts else None)
        return self._texts.take(key, encode)

    def _changed(
        self, encoder: nn.Module, stack: Sequence[tuple[Updates, float]]
    ) -> AbstractContextManager[None]:
        return adapters.applied([adapters.compose(stack, encoder)])

    def _beginning(self, request: Request) -> Beginning | None:
        spec, start = request.spec, request.start
        if not (start and spec.image and spec.width and spec.height):
            return None
        size = (spec.width, spec.height)
        picture = ImageOps.fit(open_picture(start.path), size, Image.Resampling.LANCZOS)
        pixels_1CHW = latents.to_pixels(picture).unsqueeze(0)
        return Beginning(latents.encode(self.components.vae, pixels_1CHW), spec.image.strength)


def _seed(spec: GenerateSpec, image: int) -> int:
    """Of image ``image`` of any prompt."""
    assert spec.seed is not None, "filled in at submit"
    return (spec.seed + image) % (MAX_SEED + 1)


def _key(loras: Sequence[Lora]) -> tuple[tuple[str, float], ...]:
    return tuple((lora.sha256, lora.weight) for lora in loras)


def _text_bytes(pair: tuple[Conditioning, Conditioning]) -> int:
    return sum(each.text_1LD.nbytes + each.pooled_1P.nbytes for each in pair)
