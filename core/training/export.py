"""The files that a LoRA leaves as: for diffusers, and for everything that reads kohya's."""

from pathlib import Path

from core.diffusion import kohya_file, lora_file
from core.diffusion.lora import Lora
from core.layouts import find_layout
from core.specs import FineTuneSpec


def save_for_diffusers(lora: Lora, path: Path, *, trigger: str | None = None) -> None:
    """What ``load_lora_weights`` reads; float32, as trained."""
    lora_file.write(
        path,
        lora.pairs(),
        rank=lora.rank,
        alpha=lora.alpha,
        targets=lora.suffixes,
        trigger=trigger,
    )


def save(lora: Lora, out: Path, spec: FineTuneSpec, side: int) -> dict[str, Path]:
    """Both files, by role. ``side`` is what the LoRA was trained at, in pixels."""
    (layout,) = find_layout(lora.targets)
    made = {"lora": out / lora_file.FILE_NAME, "lora_kohya": out / kohya_file.file_name(layout)}
    save_for_diffusers(lora, made["lora"], trigger=spec.trigger)
    kohya_file.write(
        made["lora_kohya"],
        lora.pairs(),
        rank=lora.rank,
        alpha=lora.alpha,
        layout=layout,
        side=side,
        trigger=spec.trigger,
    )
    return made
