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
from core.jobs import pipelines
from core.jobs.admission import parse
from core.jobs.pipelines import Pipeline
from core.specs import DistillSpec, GenerateSpec
from worker import unets
from worker.frames import BaseFolder, LoraFile, PictureFile, Run

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Needed:
    """Keys in the store of everything that the job reads; looked up before anything is copied."""

    base: Pipeline
    pictures: list[tuple[str, str | None]] = field(default_factory=list)
    """With their captions."""
    lora_keys: list[tuple[str, float]] = field(default_factory=list)
    start_key: str | None = None
    """Of a LoRA to begin with."""
    start: Pipeline | None = None
    """Whose UNet to begin with."""


def look_up(session: Session, job: Job) -> Needed:
    """Raises JobFailure when something was there at submit and is no longer."""
    try:
        spec, owner = parse(job.kind, job.spec), job.owner
        base = pipelines.find(session, owner, spec.base)
        if isinstance(spec, GenerateSpec):
            loras = [(_weights_key(session, owner, use.artifact), use.weight) for use in spec.loras]
            return Needed(base, lora_keys=loras)
        pictures = _pictures(session, owner, spec.dataset)
        if isinstance(spec, DistillSpec):
            start = pipelines.find(session, owner, spec.start) if spec.start else None
            return Needed(base, pictures, start=start)
        key = _weights_key(session, owner, spec.init_from) if spec.init_from else None
        return Needed(base, pictures, start_key=key)
    except NotFound as error:
        raise JobFailure(f"An input is gone: {error.detail}", code="input_gone") from error


def _pictures(session: Session, owner: str, dataset_id: str) -> list[tuple[str, str | None]]:
    dataset = datasets.get(session, owner, dataset_id)
    images = datasets.images_of(session, dataset)
    return [(image.store_key, image.caption) for image in images]


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
    start = folder / "start.safetensors" if needed.start_key else None
    if needed.start_key and start:
        store.fetch(needed.start_key, start)
    out = folder / "out"
    out.mkdir()
    return Run(
        job=job.id,
        attempt=job.attempt,
        kind=job.kind,
        spec=job.spec,
        base=_base_folder(needed.base, store, settings),
        pictures=pictures,
        loras=loras,
        start=str(start) if start else None,
        start_base=_base_folder(needed.start, store, settings) if needed.start else None,
        checkpoints=[str(path) for path in _checkpoints(job, store, folder)],
        first_rung=job.rung,
        cache=str(settings.cache_path / sha256(job.owner.encode()).hexdigest()[:16]),
        out=str(out),
    )


def _base_folder(base: Pipeline, store: Store, settings: Settings) -> BaseFolder:
    """With the UNet of an artifact on this disk, where it is one."""
    unet = None
    if base.unet:
        files = artifacts.files_of(base.unet)
        unet = str(unets.lay_out(settings.unets_path, base.unet.id, files, store))
    return BaseFolder(
        id=base.id,
        folder=str(bases.folder(base.parts, settings)),
        embedded=bases.is_embedded(base.parts, settings),
        unet=unet,
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
