"""What a job needs on this disk before its runner may begin."""

import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from sqlalchemy.orm import Session

from core import bases
from core.artifacts import service as artifacts
from core.artifacts.store import Store
from core.config import Settings
from core.datasets import pixels
from core.datasets import service as datasets
from core.db.engine import Database
from core.db.models import Artifact, Dataset, Image, Job
from core.errors import BaseUnknown, JobFailure, NotFound
from core.files import roll
from core.files.digest import sha256_of
from core.jobs import pipelines
from core.jobs import service as jobs
from core.jobs.admission import parse
from core.jobs.pipelines import Pipeline
from core.specs import DistillSpec, GenerateSpec, LoraUse
from worker import kept, listing
from worker.frames import BaseFolder, LoraFile, Run, StartFile
from worker.listing import Listed

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Needed:
    """Keys in the store of everything that the job reads; looked up before anything is copied."""

    base: Pipeline
    dataset: Dataset | None = None
    """Of pictures to learn from, frozen."""
    loras: list[tuple[Artifact, float]] = field(default_factory=list)
    start_image: tuple[Dataset, Image] | None = None
    """A picture to begin with, and where it is from."""
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
            loras = [(_lora_of(session, owner, use), use.weight) for use in spec.loras]
            return Needed(base, loras=loras, start_image=_start_image(session, owner, spec))
        dataset = datasets.get(session, owner, spec.dataset)
        if isinstance(spec, DistillSpec):
            start = pipelines.find(session, owner, spec.start) if spec.start else None
            return Needed(base, dataset, start=start)
        key = _weights_key(session, owner, spec.init_from) if spec.init_from else None
        return Needed(base, dataset, start_key=key)
    except (NotFound, BaseUnknown) as error:
        raise JobFailure(f"An input is gone: {error.detail}", code="input_gone") from error


def _lora_of(session: Session, owner: str, use: LoraUse) -> Artifact:
    """By name or by the job that has made it."""
    if use.artifact:
        return artifacts.get(session, owner, use.artifact)
    maker = jobs.get(session, owner, str(use.job))
    return artifacts.get(session, owner, (maker.result or {})["lora"])


def _start_image(session: Session, owner: str, spec: GenerateSpec) -> tuple[Dataset, Image] | None:
    if spec.image is None:
        return None
    dataset = datasets.get(session, owner, spec.image.dataset)
    return dataset, datasets.get_image(session, dataset, spec.image.image)


def _weights_key(session: Session, owner: str, artifact_id: str) -> str:
    (file,) = artifacts.files_of(artifacts.get(session, owner, artifact_id))
    return file.store_key


def lay_out(
    needed: Needed, job: Job, database: Database, store: Store, settings: Settings, folder: Path
) -> Run:
    """Copies the inputs into ``folder``, but for pictures that were imported, and says what the
    runner is to do with them."""
    pictures = folder / "pictures.jsonl" if needed.dataset else None
    if needed.dataset and pictures:
        listing.write(pictures, _listed(needed.dataset, database, store, folder))
    loras = []
    for index, (lora, weight) in enumerate(needed.loras):
        into = folder / f"lora-{index}"
        (file,) = kept.lay_out(settings.loras_path, lora, store, into, kept=kept.LORAS)
        lora_file = str(into / Path(file.path).name)
        loras.append(LoraFile(path=lora_file, sha256=file.sha256, weight=weight))
    picture = _start_picture(needed.start_image, store, folder / "start-picture.png")
    start = folder / "start.safetensors" if needed.start_key else None
    if needed.start_key and start:
        store.fetch(needed.start_key, start)
    checkpoint = _checkpoint(job, store, folder)
    cache = settings.cache_path / sha256(job.owner.encode()).hexdigest()[:16]
    out = folder / "out"
    out.mkdir()
    return Run(
        job=job.id,
        attempt=job.attempt,
        request_id=job.request_id,
        kind=job.kind,
        spec=job.spec,
        base=_base_folder(needed.base, store, settings, folder / "unet"),
        pictures=str(pictures) if pictures else None,
        loras=loras,
        start=str(start) if start else None,
        start_picture=picture,
        start_base=(
            _base_folder(needed.start, store, settings, folder / "start") if needed.start else None
        ),
        checkpoint=str(checkpoint) if checkpoint else None,
        first_rung=job.rung,
        cache=str(cache),
        roll=str(roll.path_of(cache, needed.dataset.id)) if needed.dataset else None,
        out=str(out),
    )


def _listed(dataset: Dataset, database: Database, store: Store, folder: Path) -> Iterator[Listed]:
    """Raises JobFailure where what was imported is not on this host."""
    if dataset.folder is not None and not Path(dataset.folder).is_dir():
        log.warning("%s, imported as dataset %s, is not here", dataset.folder, dataset.id)
        raise JobFailure(
            f"The folder that dataset {dataset.id} was imported from is not on this worker's host: "
            "mount it there too, at the same path.",
            code="dataset_not_here",
        )
    for number, image in enumerate(datasets.each_image(database, dataset.id)):
        reference = pixels.reference_to(dataset, image)
        path = folder / f"picture-{number:05}.png"
        if reference is None:
            store.fetch(pixels.stored_at(image), path)
        yield reference or path, image.caption


def _start_picture(
    needed: tuple[Dataset, Image] | None, store: Store, path: Path
) -> StartFile | None:
    if needed is None:
        return None
    dataset, image = needed
    pixels.fetch(dataset, image, store, path)
    return StartFile(path=str(path), sha256=image.sha256)


def _base_folder(base: Pipeline, store: Store, settings: Settings, unet: Path) -> BaseFolder:
    """Where it is an artifact, its UNet is put into the folder ``unet``.

    Raises JobFailure when a base that was added is here with other weights.
    """
    place = bases.folder(base.parts, settings)
    if base.parts.place and not place.is_dir():
        name = base.parts.id
        raise JobFailure(
            f"A worker has another '{name}' on its disk than the one that was added last. On that "
            f"host, run `stillroom models remove {name}` and then `stillroom models add {name} "
            "PATH` with the same file as elsewhere.",
            code="base_differs",
        )
    if base.unet:
        kept.lay_out(settings.unets_path, base.unet, store, unet, kept=kept.UNETS)
    return BaseFolder(
        id=base.id,
        folder=str(place),
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
