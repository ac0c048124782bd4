"""Emphasis in prompts, as people write it in A1111 and ComfyUI.

``(word)`` counts 1.1 times, ``((word))`` 1.21 times, ``(word:1.3)`` 1.3 times, ``[word]`` 1/1.1
times; ``\\(`` is a parenthesis like any other; ``BREAK`` begins a new chunk.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

_STRONGER, _WEAKER = 1.1, 1 / 1.1
_MARK = re.compile(
    r"\\(?P<escaped>[()\[\]\\])"
    r"|:\s*(?P<weight>[+-]?(?:\d++\.?+\d*+|\.\d++))\s*\)"
    r"|(?P<bracket>[()\[\]])"
    r"|(?P<break>\bBREAK\b)"
    r"|(?P<text>[^\\()\[\]:B]+|.)",
    re.DOTALL,
)


@dataclass(frozen=True)
class Span:
    """Text that counts ``weight`` times; ``is_break``: none, but a new chunk begins here."""

    text: str
    weight: float = 1.0
    is_break: bool = False


def parse(prompt: str) -> list[Span]:
    """The spans of a prompt in order.

    No prompt is an error: a bracket that nothing opened is text, and one that nothing closes counts
    to the end, as elsewhere.
    """
    texts: list[str | None] = []  # None: a break
    weights: list[float] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}
    for mark in _MARK.finditer(prompt):
        bracket, weight = mark["bracket"], mark["weight"]
        if bracket in ("(", "["):
            opened[bracket].append(len(texts))
        elif bracket == "]" and opened["["]:
            _weigh(weights, opened["["].pop(), _WEAKER)
        elif bracket == ")" and opened["("]:
            _weigh(weights, opened["("].pop(), _STRONGER)
        elif weight and opened["("]:
            _weigh(weights, opened["("].pop(), float(weight))
        else:
            texts.append(None if mark["break"] else mark["escaped"] or mark.group())
            weights.append(1.0)
    for start in opened["("]:
        _weigh(weights, start, _STRONGER)
    for start in opened["["]:
        _weigh(weights, start, _WEAKER)
    return _joined(texts, weights)


def _weigh(weights: list[float], start: int, weight: float) -> None:
    """All from ``start`` on: of thousands of brackets in each other, all the rest each time, so
    these are numbers and not spans."""
    weights[start:] = [each * weight for each in weights[start:]]


def _joined(texts: Sequence[str | None], weights: Sequence[float]) -> list[Span]:
    """Neighbours of one weight are one span."""
    together = groupby(
        zip(texts, weights, strict=True), key=lambda each: (each[1], each[0] is None)
    )
    return [
        Span("".join(text or "" for text, _ in same), weight, is_break)
        for (weight, is_break), same in together
    ]
