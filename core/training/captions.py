"""What pictures are learnt with, as the UNet hears it."""

from core.diffusion import conditioning
from core.diffusion.components import Components
from core.diffusion.conditioning import Conditioning
from core.training.shelf import Row

NOTHING = -1
"""The number of the row that says nothing: what generation steers away from, and what a caption
that is dropped becomes."""


def encode(components: Components, caption: str) -> Row:
    """``text`` (L, D) and ``pooled`` (P,) of one caption: a batch changes last bits."""
    return _row(conditioning.encode_prompt(components, caption))


def nothing(components: Components) -> Row:
    """What the base hears where there is no prompt."""
    return _row(conditioning.encode_negative(components, None))


def _row(told: Conditioning) -> Row:
    return {"text": told.text_1LD[0].contiguous(), "pooled": told.pooled_1P[0].contiguous()}
