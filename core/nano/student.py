"""``nano-ssd-1b``: nano-sdxl with SSD-1B's UNet, cut out of nano-sdxl's and not distilled yet."""

import os
import shutil
from pathlib import Path

from diffusers import UNet2DConditionModel

from core.diffusion import surgery
from core.files.atomic import sync
from core.files.digest import sha256_of_folder
from core.layouts import SSD_1B

LAYERS = (0, 1, 2, 3)
"""Of nano-sdxl's stacks of ten blocks."""
MADE_FROM = "made_from"
"""The file in the folder that tells of which teacher and layers it was made."""


def build(teacher: Path, folder: Path) -> None:
    """Writes the pipeline folder, the same bytes each time; one of another teacher is replaced.

    Written beside ``folder`` and renamed, so a folder that exists is whole. Where another process
    is faster, its folder stays.

    Args:
        teacher: nano-sdxl's pipeline folder.
        folder: what ``StableDiffusionXLPipeline.from_pretrained`` is to load.
    """
    parts = sorted(part for part in teacher.iterdir() if part.is_dir())
    origin = f"{' '.join(map(sha256_of_folder, parts))} {LAYERS}\n"
    if _is_made_from(origin, folder):
        return
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        _write(teacher, aside)
        (aside / MADE_FROM).write_text(origin)
        for path in [*aside.rglob("*"), aside]:
            sync(path)
        _take_its_place(aside, folder, origin)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _is_made_from(origin: str, folder: Path) -> bool:
    try:
        return (folder / MADE_FROM).read_text() == origin
    except FileNotFoundError:
        return False


def _take_its_place(aside: Path, folder: Path, origin: str) -> None:
    if _is_made_from(origin, folder):
        return  # what another process has made meanwhile, somebody may be reading
    shutil.rmtree(folder, ignore_errors=True)
    try:
        aside.rename(folder)
    except OSError:
        if not _is_made_from(origin, folder):
            raise
    sync(folder.parent)


def _write(teacher: Path, folder: Path) -> None:
    shutil.copytree(teacher, folder, ignore=shutil.ignore_patterns("unet", "README.md", "*.png"))
    unet = UNet2DConditionModel.from_pretrained(teacher / "unet")
    cut = surgery.student_from_teacher(unet, SSD_1B, LAYERS)
    cut.student.half().save_pretrained(folder / "unet")
