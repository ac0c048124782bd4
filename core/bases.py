"""The base models Stillroom knows: what each is, where it lies on this disk, how to get it."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from core.config import Settings
from core.errors import BaseNotAvailable, BaseUnknown
from core.layouts import NANO_WIDTHS, REAL_WIDTHS, SDXL, SSD_1B, VEGA, UNetShape


@dataclass(frozen=True)
class Source:
    """A hub repository at one commit: the same bytes for everybody, today and in a year."""

    repository: str
    revision: str


@dataclass(frozen=True)
class BaseModel(UNetShape):
    """``source``: where it is fetched from. ``place``: of one that the administrator added, its
    folder's name, another for other weights. The package's own have neither."""

    id: str
    licence: str
    source: Source | None
    prediction_type: str = "epsilon"
    place: str | None = None

    @property
    def is_ours(self) -> bool:
        """In the package: every worker has it."""
        return self.source is None and self.place is None


EMBEDDED = Path(__file__).parent / "nano" / "weights"
"""Folders of the package's own bases; the README in each says how it was trained."""
NANO_SDXL, NANO_SSD_1B = EMBEDDED / "nano-sdxl", EMBEDDED / "nano-ssd-1b"
FP16_VAE = Source("madebyollin/sdxl-vae-fp16-fix", "207b116dae70ace3637169f1ddd2434b91b3a8cd")
"""SDXL's own VAE overflows in half precision and paints black; these weights do not."""

_ALL = (
    BaseModel(
        SSD_1B,
        REAL_WIDTHS,
        1024,
        "ssd-1b",
        "apache-2.0",
        Source("segmind/SSD-1B", "60987f37e94cd59c36b1cba832b9f97b57395a10"),
    ),
    BaseModel(
        SDXL,
        REAL_WIDTHS,
        1024,
        "sdxl",
        "openrail++",
        Source(
            "stabilityai/stable-diffusion-xl-base-1.0", "462165984030d82259a11f4367a4eed129e94a7b"
        ),
    ),
    BaseModel(
        VEGA,
        REAL_WIDTHS,
        1024,
        "vega",
        "apache-2.0",
        Source("segmind/Segmind-Vega", "7714c4363e5856ff974a4f4b068e8691f26d0b40"),
    ),
    BaseModel(SDXL, NANO_WIDTHS, 64, "nano-sdxl", "apache-2.0", None),
    BaseModel(SSD_1B, NANO_WIDTHS, 64, "nano-ssd-1b", "apache-2.0", None),
)
CATALOGUE: dict[str, BaseModel] = {base.id: base for base in _ALL}
AT = "@"
"""In ``place``, between a base's id and what tells its weights: no id has it."""
PARTS = "parts"
"""The folder in the home of what checkpoints of one file lack."""


def find(base_id: str) -> BaseModel:
    """Raises BaseUnknown when the catalogue has no such id."""
    try:
        return CATALOGUE[base_id]
    except KeyError:
        raise unknown(base_id, CATALOGUE) from None


def unknown(base_id: str, known: Iterable[str]) -> BaseUnknown:
    return BaseUnknown(
        f"No base model is called '{base_id}'. This server knows {', '.join(known)}."
    )


def folder(base: BaseModel, settings: Settings) -> Path:
    """Where its pipeline lies, or would: in the administrator's folder, the package, the home."""
    if base.place:
        return settings.added_path / base.place
    given = settings.bases.get(base.id)
    if given:
        return given.expanduser()
    return (EMBEDDED if base.source is None else settings.models_path) / base.id


def is_embedded(base: BaseModel, settings: Settings) -> bool:
    """The package's own, with no folder of the administrator's in its place."""
    return base.is_ours and base.id not in settings.bases


def is_here(base: BaseModel, settings: Settings) -> bool:
    """On this disk."""
    return (folder(base, settings) / "model_index.json").is_file()


def ids_here(settings: Settings) -> list[str]:
    """Those of the catalogue, then those that were added. Asked at every claim and beat."""
    return [*(base.id for base in _ALL if is_here(base, settings)), *_added(settings.added_path)]


def folder_here(base_id: str, settings: Settings) -> Path | None:
    """Of a base on this disk."""
    if base := CATALOGUE.get(base_id):
        return folder(base, settings) if is_here(base, settings) else None
    places = [place for place in _places(settings.added_path) if place.startswith(base_id + AT)]
    return settings.added_path / places[0] if places else None


def _added(folder: Path) -> list[str]:
    """A folder is put there whole: its name is enough."""
    return sorted({place.partition(AT)[0] for place in _places(folder)})


def _places(folder: Path) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if not name.startswith(".")]
    except FileNotFoundError:
        return []


def how_to_get(base: BaseModel) -> str:
    if base.place:
        return (
            f"The base model '{base.id}' is not on the disk of any live worker. Run `stillroom "
            f"models add {base.id} PATH` there, with the file or folder that it was added from."
        )
    return (
        f"The base model '{base.id}' is not on the disk of any live worker. Run "
        f"`stillroom models pull {base.id}` there, or point STILLROOM_BASES at a folder that has "
        f'it, as in STILLROOM_BASES=\'{{"{base.id}": "/models/{base.id}"}}\', and restart.'
    )


def not_available(base: BaseModel) -> BaseNotAvailable:
    return BaseNotAvailable(how_to_get(base))
