"""What a checkpoint of one file lacks, from what lies on this disk already.

Tokenizers, of which such a file has none; and the VAE that works in half precision, in place of one
of which nobody knows: SDXL's own overflows there and paints black.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from core import bases
from core.adding import folder
from core.adding.family import NANO, REAL, TOKENIZERS, Family
from core.adding.found import Part
from core.config import Settings
from core.errors import NotABase
from core.layouts import REAL_WIDTHS, SDXL


def tokenizers(family: Family, settings: Settings) -> Path:
    """A folder with both. Raises NotABase where the disk has none; says what brings one."""
    if family is NANO:
        return NANO.folder
    for lender in _folders(settings):
        if all(folder.tokenizer_files(lender / name) for name in TOKENIZERS):
            return lender
    raise NotABase(
        "The file has no tokenizers, as none of its kind has, and no base of this disk can lend "
        "them. Run `stillroom models pull parts` (0.34 GB: tokenizers and VAE) or pull a whole "
        "base, such as `stillroom models pull ssd-1b`, then do this again."
    )


def half_vae(family: Family, settings: Settings) -> tuple[Path, Part] | None:
    """The VAE that works in half precision, with its folder; None where the disk has none."""
    if family is NANO:
        return None
    for lender in _folders(settings):
        if _takes_halves(lender / "vae" / "config.json"):
            path = folder.weights_of(lender, "vae")
            return lender / "vae", folder.part_of(path, "vae", REAL.config("vae"), SDXL)
    return None


def _folders(settings: Settings) -> Iterator[Path]:
    """Those of full size: what was pulled for this, then bases."""
    yield settings.models_path / bases.PARTS
    for base in bases.CATALOGUE.values():
        if base.widths == REAL_WIDTHS and bases.is_here(base, settings):
            yield bases.folder(base, settings)


def _takes_halves(config: Path) -> bool:
    try:
        told = json.loads(config.read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(told, dict) and told.get("force_upcast") is False
