"""What a run is a run of: whether a checkpoint is one of its own and leads to the same bits."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from core.diffusion.components import Components
from core.diffusion.identity import arithmetic, files
from core.files.digest import sha256_of, sha256_of_folder
from core.ladder import Rung
from core.specs import TrainingSpec
from core.training.cache import key_of
from core.training.data import Source

LENGTH = frozenset({"steps", "epochs", "checkpoint_every", "dataset"})
"""Fields that say how long a run is and where its pictures are kept, not what is learnt."""
PARTS = ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler")


@dataclass(frozen=True)
class Origin:
    """``lesson`` is the hash of spec, pictures, words and base; with the same ``arithmetic`` too,
    a run that was broken off ends with the same tensors as one that was not."""

    lesson: str
    arithmetic: dict[str, str]


def origin_of(
    spec: TrainingSpec,
    components: Components,
    sources: Sequence[Source],
    start: Path | None,
    rung: Rung,
) -> Origin:
    """``start``: the LoRA's file or the UNet's folder that the run begins with, if any."""
    lesson = key_of(
        spec=spec.model_dump(mode="json", exclude=set(LENGTH)),
        pictures=[[source.sha256, source.caption] for source in sources],
        base=files(components, *PARTS),
        init_from=_digest(start) if start else None,
    )
    return Origin(
        lesson,
        arithmetic(components)
        | {"threads": str(torch.get_num_threads()), "micro_batch": str(rung.micro_batch)},
    )


def _digest(start: Path) -> str:
    return sha256_of_folder(start) if start.is_dir() else sha256_of(start)
