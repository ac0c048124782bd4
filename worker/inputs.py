"""What a job needs on this disk before its runner may begin."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from sqlalchemy.orm import Session

from core import bases
from core.artifacts import service as artifacts
from core.artifacts.store import Store
from core.config import Settings
from core.datasets import service as datasets
from core.db.models import Job
from core.errors import JobFailure, NotFound
from core.specs import FineTuneSpec, GenerateSpec
from worker.frames import BaseFolder, LoraFile, PictureFile, Run

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Needed:
    """Keys in the store of everything that the job reads; looked up before anything is copied."""

    base_id: str
    pictures: list[tuple[str, str | None]]
    """With their captions."""
    lora_keys: list[tuple[str, float]] = field(default_factory=list)
    init_key: str | None = None


def look_up(session: Session, job: Job) -> Needed:
    """Raises JobFailure when something was there at submit and is no longer."""
    try:
        if job.kind == "fine_tune":
            training = FineTuneSpec.model_validate(job.spec)
            dataset = datasets.get(session, job.owner, training.dataset)
            images = datasets.images_of(session, dataset)
            pictures = [(image.store_key, image.caption) for image in images]
            start = training.init_from
            init_key = _weights_key(session, job.owner, start) if start else None
            return Needed(training.base, pictures, init_key=init_key)
        drawing = GenerateSpec.model_validate(job.spec)
        loras = [
            (_weights_key(session, job.owner, use.artifact), use.weight) for use in drawing.loras
        ]
        return Needed(drawing.base, [], loras)
    except NotFound as error:
        raise JobFailure(f"An input is gone: {error.detail}", code="input_gone") from error


def _weights_key(session: Session, owner: str, artifact_id: str) -> str:
    (file,) = artifacts.files_of(artifacts.get(session, owner, artifact_id))
    return file.store_key


def lay_out(needed: Needed, job: Job, store: Store, settings: Settings, folder: Path) -> Run:
    """Copies the inputs into ``folder`` and says what the runner is to do with them."""
    pictures = []
    for index, (key, caption) in enumerate(needed.pictures):
        path = folder / f"picture-{index:05}.png"
        store.fetch(key, path)
        pictures.append(PictureFile(path=str(path), caption=caption))
    loras = []
    for index, (key, weight) in enumerate(needed.lora_keys):
        path = folder / f"lora-{index}.safetensors"
        store.fetch(key, path)
        loras.append(LoraFile(path=str(path), weight=weight))
    init_from = folder / "init.safetensors" if needed.init_key else None
    if needed.init_key and init_from:
        store.fetch(needed.init_key, init_from)
    out = folder / "out"
    out.mkdir()
    base = bases.find(needed.base_id)
    return Run(
        job=job.id,
        attempt=job.attempt,
        kind=job.kind,
        spec=job.spec,
        base=BaseFolder(
            id=base.id,
            folder=str(bases.folder(base, settings)),
            embedded=bases.is_embedded(base, settings),
        ),
        pictures=pictures,
        loras=loras,
        init_from=str(init_from) if init_from else None,
        checkpoints=[str(path) for path in _checkpoints(job, store, folder)],
        first_rung=job.rung,
        cache=str(settings.cache_path / sha256(job.owner.encode()).hexdigest()[:16]),
        out=str(out),
    )


def _checkpoints(job: Job, store: Store, folder: Path) -> Iterator[Path]:
    """Where earlier attempts stood, the newest first; one that the store lost is left out."""
    for checkpoint in job.checkpoints:
        path = folder / "checkpoints" / f"step-{checkpoint['step']:08d}"
        try:
            for file in checkpoint["files"]:
                store.fetch(file["store_key"], path / file["path"])
        except NotFound:
            log.warning("the store has lost the checkpoint of step %d", checkpoint["step"])
        else:
            yield path
