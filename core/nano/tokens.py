"""CLIP's tokenizer with merges of our own: any text has tokens, a word that we know has one."""

from collections.abc import Iterable
from typing import Any

from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

LENGTH = 77
"""Longest prompt in tokens, start and end included: CLIP's."""
START, END = "<|startoftext|>", "<|endoftext|>"
PADDING = (END, "!")
"""What SDXL's first and second tokenizer fill up with."""
END_OF_WORD = "</w>"

Merge = tuple[str, str]


def learn_merges(captions: Iterable[str]) -> list[Merge]:
    """The merges that make one token of each word in the captions, the same for the same words.

    Word by word, each on top of what the words before it need: a merge that comes later is applied
    later, so no word takes another apart. (The trainer of ``tokenizers`` breaks ties as its hash
    tables lie, another way in each process.)
    """
    merges: list[Merge] = []
    for word in sorted({word for caption in captions for word in caption.lower().split()}):
        pieces = _merged(_letters(word), merges)
        while len(pieces) > 1:
            merges.append((pieces[0], pieces[1]))
            pieces = _merged(pieces, merges[-1:])
    return merges


def _letters(word: str) -> list[str]:
    """The word's bytes as CLIP writes them, the last one marked as the end."""
    ((letters, _),) = ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(word)
    return [*letters[:-1], letters[-1] + END_OF_WORD]


def _merged(pieces: list[str], merges: list[Merge]) -> list[str]:
    """Each merge in turn, wherever it fits, from the left."""
    for left, right in merges:
        place = 0
        while place < len(pieces) - 1:
            if (pieces[place], pieces[place + 1]) == (left, right):
                pieces = [*pieces[:place], left + right, *pieces[place + 2 :]]
            place += 1
    return pieces


def tokenizer(merges: list[Merge], pad: str) -> CLIPTokenizer:
    """In CLIP's order: bytes, bytes that end a word, merged tokens, start and end."""
    letters = sorted(ByteLevel.alphabet())
    endings = [f"{letter}{END_OF_WORD}" for letter in letters]
    merged = dict.fromkeys("".join(merge) for merge in merges)
    vocab = {
        token: number for number, token in enumerate([*letters, *endings, *merged, START, END])
    }
    return CLIPTokenizer(
        vocab=vocab, merges=list[Any](merges), pad_token=pad, model_max_length=LENGTH
    )
