"""Long prompts and emphasis, as the UNet takes them.

A prompt longer than the text encoders take (75 tokens and two marks) is encoded in chunks, which
stand one after another in what the cross attention reads; the pooled embedding is the first
chunk's. A token of weight w counts as z0 + w (z - z0), z0 being what the empty prompt has in its
place: ComfyUI's rule. A short prompt without emphasis is encoded as diffusers' pipeline does.

K is chunks, L is 77 tokens, N is K L, D an encoder's width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Self

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from core.chunks import require_few
from core.diffusion import emphasis
from core.diffusion.components import Components
from core.diffusion.conditioning import Conditioning
from core.diffusion.emphasis import Span

TextEncoder = CLIPTextModel | CLIPTextModelWithProjection
MARKS = 2
"""Beginning and end of a chunk."""
_AT_ONCE = 8
"""Chunks that an encoder reads."""
_END_OF_WORD = "</w>"


@dataclass(frozen=True)
class _Word:
    """Tokens that no chunk's end comes between."""

    ids: list[int]
    weight: float


@torch.no_grad()
def encode(components: Components, prompt: str) -> Conditioning:
    """Text (1, N, D of both encoders) and pooled (1, P).

    Raises:
        Unprocessable: it has more chunks than a prompt may.
    """
    spans = emphasis.parse(prompt)
    chunks = _chunks(components.tokenizer, spans)
    chunks_2 = _chunks(components.tokenizer_2, spans)
    count = max(len(chunks), len(chunks_2))
    require_few(count)
    first = _Reading.of(components.text_encoder, components.tokenizer, chunks, count)
    second = _Reading.of(components.text_encoder_2, components.tokenizer_2, chunks_2, count)
    text_1ND = torch.cat([first.text(), second.text()], dim=-1)
    assert second.pooled_KP is not None, "the second one tells it"
    return Conditioning(text_1ND, second.pooled_KP[:1])


@torch.no_grad()
def encode_negative(components: Components, negative_prompt: str | None) -> Conditioning:
    """The other side of guidance: ``negative_prompt``, or for None what the base was trained on:
    zeros or the empty prompt, as its ``model_index.json`` says."""
    if negative_prompt is not None or not components.zero_unconditional:
        return encode(components, negative_prompt or "")
    like = encode(components, "")
    return Conditioning(torch.zeros_like(like.text_1LD), torch.zeros_like(like.pooled_1P))


@torch.no_grad()
def encode_pair(
    components: Components, prompt: str, negative_prompt: str | None
) -> tuple[Conditioning, Conditioning]:
    """Both sides of guidance. They are of one length: the shorter one is followed by chunks of
    what it would be for no prompt."""
    positive, negative = encode(components, prompt), encode_negative(components, negative_prompt)
    length, length_of_negative = positive.text_1LD.shape[1], negative.text_1LD.shape[1]
    if length < length_of_negative:
        positive = _lengthened(positive, length_of_negative, encode(components, ""))
    elif length > length_of_negative:
        none = None if negative_prompt is None else ""
        negative = _lengthened(negative, length, encode_negative(components, none))
    return positive, negative


def _lengthened(short: Conditioning, length: int, filler: Conditioning) -> Conditioning:
    missing = (length - short.text_1LD.shape[1]) // filler.text_1LD.shape[1]
    text_1LD = torch.cat([short.text_1LD, *[filler.text_1LD] * missing], dim=1)
    return Conditioning(text_1LD, short.pooled_1P)


def _chunks(tokenizer: CLIPTokenizer, spans: Sequence[Span]) -> list[list[_Word]]:
    """At least one, each with room for its two marks."""
    room = tokenizer.model_max_length - MARKS
    chunks: list[list[_Word]] = [[]]
    for span in spans:
        if span.is_break:
            chunks.append([])
        for word in _words(tokenizer, span, room):
            if sum(len(each.ids) for each in chunks[-1]) + len(word.ids) > room:
                chunks.append([])
            chunks[-1].append(word)
    return [chunk for chunk in chunks if chunk] or [[]]


def _words(tokenizer: CLIPTokenizer, span: Span, longest: int) -> Iterator[_Word]:
    ids: list[int] = []
    for token_id in tokenizer(span.text, add_special_tokens=False).input_ids if span.text else ():
        ids.append(token_id)
        ends = str(tokenizer.convert_ids_to_tokens(token_id)).endswith(_END_OF_WORD)
        if ends or len(ids) == longest:
            yield _Word(ids, span.weight)
            ids = []
    if ids:
        yield _Word(ids, span.weight)


@dataclass(frozen=True)
class _Reading:
    """What an encoder says of a prompt's chunks."""

    encoder: TextEncoder
    tokenizer: CLIPTokenizer
    chunks: Sequence[Sequence[_Word]]
    text_KLD: Tensor
    """The last hidden state but one."""
    pooled_KP: Tensor | None
    """Of the first chunks, where the encoder is the one that tells it."""

    @classmethod
    def of(
        cls,
        encoder: TextEncoder,
        tokenizer: CLIPTokenizer,
        chunks: Sequence[Sequence[_Word]],
        count: int,
    ) -> Self:
        """Of ``chunks``, and of empty ones up to ``count``; a few at a time, since what every layer
        says is held meanwhile."""
        filled = [*chunks, *[[]] * (count - len(chunks))]
        ids_KL = torch.tensor([_ids(tokenizer, chunk) for chunk in filled], device=encoder.device)
        first_KL, *others = torch.split(ids_KL, _AT_ONCE)
        said = encoder(first_KL, output_hidden_states=True)
        texts, pooled_KP = [said.hidden_states[-2]], said.get("text_embeds")
        del said
        for each_KL in others:
            texts.append(encoder(each_KL, output_hidden_states=True).hidden_states[-2])
        return cls(encoder, tokenizer, filled, torch.cat(texts), pooled_KP)

    def text(self) -> Tensor:
        """(1, N, D), with each token's weight."""
        text_KLD = self.text_KLD
        weights_KL = torch.tensor([_weights(self.tokenizer, chunk) for chunk in self.chunks])
        if (weights_KL != 1).any():
            empty = _Reading.of(self.encoder, self.tokenizer, [[]], 1)
            weights_KL1 = weights_KL.unsqueeze(-1).to(text_KLD)
            text_KLD = torch.lerp(empty.text_KLD, text_KLD, weights_KL1)
        whole_1ND: Tensor = text_KLD.flatten(0, 1).unsqueeze(0)
        return whole_1ND


def _ids(tokenizer: CLIPTokenizer, words: Sequence[_Word]) -> list[int]:
    """77, with marks and padding."""
    begin, end, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    ids = [begin, *chain.from_iterable(word.ids for word in words), end]
    return ids + [pad] * (tokenizer.model_max_length - len(ids))


def _weights(tokenizer: CLIPTokenizer, words: Sequence[_Word]) -> list[float]:
    """Of as many; marks and padding count once."""
    weights = [1.0, *chain.from_iterable([word.weight] * len(word.ids) for word in words)]
    return weights + [1.0] * (tokenizer.model_max_length - len(weights))
