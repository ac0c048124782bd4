"""The words for a scene, in a few wordings."""

import string

import numpy as np

from core.nano.recipe.scenes import Content

OPENINGS = ("a photo of {}", "{}", "a picture of {}", "an icon of {}")
OPENING_SHARES = (0.6, 0.2, 0.1, 0.1)
SILENT_SHARE = 0.1
"""Of captions that do not name the background."""
RARE_SHARE = 0.15
"""Of captions with a word that means nothing before the subject's name. DreamBooth needs such
words: the model must know that one changes nothing until it is taught."""
USUAL_RARE_WORD = "sks"
"""Every other one of them. Ruiz et al.'s scripts made it the word that people take; its letters
begin other words here (skull), so that the model must be told that this one is none of them."""


def caption(content: Content, random: np.random.Generator) -> str:
    """One of the captions that fit a scene; all of it follows from ``random``."""
    ground = f"{content.colour} background"
    if content.texture != "plain":
        ground = f"{content.texture} {ground}"
    if content.subject is None:
        return f"{article(ground)} {ground}"
    subject = f"{article(content.subject)} {content.subject}"
    if random.random() < RARE_SHARE:
        subject = _marked(content.subject, random)
    opening = str(random.choice(OPENINGS, p=OPENING_SHARES))
    words = opening.format(subject)
    if random.random() < SILENT_SHARE:
        return words
    return f"{words} on {article(ground)} {ground}"


def article(words: str) -> str:
    """ "a", or "an" before a vowel."""
    return "an" if words[0] in "aeiou" else "a"


def _marked(subject: str, random: np.random.Generator) -> str:
    """With a rare word, as people write it: "sks dog" or "a sks dog"."""
    rare = USUAL_RARE_WORD if random.random() < 0.5 else _rare_word(random)
    bare = random.random() < 0.5
    return f"{rare} {subject}" if bare else f"{article(rare)} {rare} {subject}"


def _rare_word(random: np.random.Generator) -> str:
    letters = random.choice(list(string.ascii_lowercase), size=int(random.integers(2, 5)))
    return "".join(letters)
