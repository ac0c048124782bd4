"""What a run is a run of: whether a checkpoint is one of its own and leads to the same bits."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from core.diffusion.components import Components
from core.diffusion.identity import arithmetic, files
from core.files.digest import sha256_of
from core.ladder import Rung
from core.specs import FineTuneSpec
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
    spec: FineTuneSpec,
    components: Components,
    sources: Sequence[Source],
    init_from: Path | None,
    rung: Rung,
) -> Origin:
    lesson = key_of(
        spec=spec.model_dump(mode="json", exclude=set(LENGTH)),
        pictures=[[source.sha256, source.caption] for source in sources],
        base=files(components, *PARTS),
        init_from=sha256_of(init_from) if init_from else None,
    )
    return Origin(
        lesson,
        arithmetic(components)
        | {"threads": str(torch.get_num_threads()), "micro_batch": str(rung.micro_batch)},
    )
