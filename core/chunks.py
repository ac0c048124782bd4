"""Chunks of 75 tokens, which long prompts are read in: what a prompt may have of them.

Each is text that every row of a batch attends to, in every layer. ``BREAK`` begins one, so that a
short prompt may have hundreds.
"""

import re

from core.errors import Unprocessable

MAX_CHUNKS = 32
"""2,400 tokens, some 1,500 words of English."""
_BREAK = re.compile(r"\bBREAK\b")
_LETTER = re.compile(r"[^\W\d_]")
"""Whatever the text encoders' tokens are, it is one of them or more."""


def count_at_least(prompt: str) -> int:
    """As far as can be told without a tokenizer."""
    return sum(1 for part in _BREAK.split(prompt) if _LETTER.search(part))


def require_few(count: int) -> None:
    """Raises Unprocessable."""
    if count > MAX_CHUNKS:
        raise Unprocessable(
            f"A prompt is read in chunks of 75 tokens, and this one has {count} of them where "
            f"{MAX_CHUNKS} may be: leave out words, or `BREAK`s, each of which begins one."
        )
