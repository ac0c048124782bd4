"""What a job needs on this disk before its runner may begin."""

import logging
import shutil
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
from core.files.digest import sha256_of
from core.jobs import pipelines
from core.jobs import service as jobs
from core.jobs.admission import parse
from core.jobs.pipelines import Pipeline
from core.specs import DistillSpec, GenerateSpec, LoraUse
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
            loras = [
                (_weights_key(session, owner, _lora_of(session, owner, use)), use.weight)
                for use in spec.loras
            ]
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


def _lora_of(session: Session, owner: str, use: LoraUse) -> str:
    """The artifact, by name or by the job that has made it."""
    if use.artifact:
        return use.artifact
    maker = jobs.get(session, owner, str(use.job))
    return str((maker.result or {})["lora"])


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
    checkpoint = _checkpoint(job, store, folder)
    out = folder / "out"
    out.mkdir()
    return Run(
        job=job.id,
        attempt=job.attempt,
        kind=job.kind,
        spec=job.spec,
        base=_base_folder(needed.base, store, settings, folder / "unet"),
        pictures=pictures,
        loras=loras,
        start=str(start) if start else None,
        start_base=(
            _base_folder(needed.start, store, settings, folder / "start") if needed.start else None
        ),
        checkpoint=str(checkpoint) if checkpoint else None,
        first_rung=job.rung,
        cache=str(settings.cache_path / sha256(job.owner.encode()).hexdigest()[:16]),
        out=str(out),
    )


def _base_folder(base: Pipeline, store: Store, settings: Settings, unet: Path) -> BaseFolder:
    """Where it is an artifact, its UNet is put into the folder ``unet``."""
    if base.unet:
        files = artifacts.files_of(base.unet)
        unets.lay_out(settings.unets_path, base.unet.id, files, store, unet)
    return BaseFolder(
        id=base.id,
        folder=str(bases.folder(base.parts, settings)),
        embedded=bases.is_embedded(base.parts, settings),
        unet=str(unet) if base.unet else None,
    )


def _checkpoint(job: Job, store: Store, folder: Path) -> Path | None:
    """Where the last attempt stood: the newest checkpoint that the store still has whole. A second
    one may be of as many gigabytes again."""
    for checkpoint in job.checkpoints:
        path = folder / "checkpoints" / f"step-{checkpoint['step']:08d}"
        try:
            for file in checkpoint["files"]:
                store.fetch(file["store_key"], path / file["path"])
                if sha256_of(path / file["path"]) != file["sha256"]:
                    raise NotFound(f"{file['path']} is not what was stored.")
        except NotFound as lost:
            log.warning("no checkpoint of step %d: %s", checkpoint["step"], lost.detail)
            shutil.rmtree(path, ignore_errors=True)
        else:
            return path
    return None
