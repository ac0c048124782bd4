"""What a job needs on this disk before its runner may begin."""

from dataclasses import dataclass
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
from worker.frames import BaseFolder, LoraFile, Run


@dataclass(frozen=True)
class Needed:
    """Keys in the store of everything that the job reads; looked up before anything is copied."""

    base_id: str
    picture_keys: list[str]
    lora_keys: list[tuple[str, float]]


def look_up(session: Session, job: Job) -> Needed:
    """Raises JobFailure when something was there at submit and is no longer."""
    try:
        if job.kind == "fine_tune":
            training = FineTuneSpec.model_validate(job.spec)
            dataset = datasets.get(session, job.owner, training.dataset)
            images = datasets.images_of(session, dataset)
            return Needed(training.base, [image.store_key for image in images], [])
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
    pictures = [folder / f"picture-{index:05}.png" for index in range(len(needed.picture_keys))]
    for key, path in zip(needed.picture_keys, pictures, strict=True):
        store.fetch(key, path)
    loras = []
    for index, (key, weight) in enumerate(needed.lora_keys):
        path = folder / f"lora-{index}.safetensors"
        store.fetch(key, path)
        loras.append(LoraFile(path=str(path), weight=weight))
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
        pictures=[str(path) for path in pictures],
        loras=loras,
        out=str(out),
    )
