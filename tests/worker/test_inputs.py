"""What a job names is found in the store when its attempt begins."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops

from core import bases, catalogue
from core.artifacts.store import Store
from core.bases import BaseModel
from core.config import Settings
from core.datasets import service as datasets
from core.datasets.importing import importer
from core.db.engine import Database
from core.db.models import AddedBase, Artifact, Job, Worker, now
from core.errors import JobFailure
from core.jobs.attempt import Attempt
from core.jobs.removal import forget
from core.owners import service as owners
from tests.core.jobs.test_distill_admission import make_unet
from tests.core.jobs.test_service import fine_tune, make_dataset, make_lora
from tests.support import pictures
from tests.support.jobs import BASES, SPEC, register, submit, succeed, take
from worker import inputs, listing
from worker.frames import Run


def make_by_job(database: Database, settings: Settings) -> tuple[Job, str]:
    """A fine-tune that has succeeded, and the LoRA it made."""
    spec = fine_tune(make_dataset(database, 1))
    submit(database, settings, kind="fine_tune", spec=spec)
    job = take(database, register(database, settings))
    lora = make_lora(database, "nano-ssd-1b")
    with database.write() as session:
        made = session.get_one(Artifact, lora)
        made.job_id, made.files = job.id, [made.files[0] | {"store_key": "of the job"}]
    return succeed(database, job, lora=lora), lora


def test_a_job_stands_for_the_lora_that_it_made(any_database: Database, settings: Settings) -> None:
    job, lora = make_by_job(any_database, settings)
    named = [{"job": job.id, "weight": 0.5}, {"artifact": lora}]
    drawing = submit(any_database, settings, spec=SPEC | {"loras": named})
    with any_database.read() as session:
        needed = inputs.look_up(session, drawing)
    keys = [(made.files[0]["store_key"], weight) for made, weight in needed.loras]
    assert keys == [("of the job", 0.5), ("of the job", 1.0)]


def test_a_job_that_is_gone_takes_its_lora_along(
    any_database: Database, settings: Settings
) -> None:
    job, _ = make_by_job(any_database, settings)
    drawing = submit(any_database, settings, spec=SPEC | {"loras": [{"job": job.id}]})
    with any_database.write() as session:
        ended = session.get_one(Job, drawing.id)
        ended.state, ended.finished_at = "failed", now()
        assert forget(session, job.id)
    with any_database.read() as session, pytest.raises(JobFailure, match=job.id) as gone:
        inputs.look_up(session, drawing)
    assert gone.value.code == "input_gone"


def save(store: Store, step: int) -> dict[str, Any]:
    """A checkpoint of one file, as a job's row names it."""
    key, content = f"saved/{step}", f"tensors of step {step}".encode()
    store.put_bytes(key, content)
    digest = hashlib.sha256(content).hexdigest()
    file = {"path": "tensors", "bytes": len(content), "sha256": digest, "store_key": key}
    return {"step": step, "files": [file]}


def damage(store: Store, key: str) -> None:
    store.put_bytes(key, b"tensors of step zz")


@pytest.mark.parametrize("harm", [damage, Store.delete])
def test_a_checkpoint_that_is_not_whole_is_passed_over_for_the_one_before(
    harm: Callable[[Store, str], None], database: Database, settings: Settings, tmp_path: Path
) -> None:
    store = Store.of(settings)
    store.put_bytes("0", b"a picture")
    submit(database, settings, kind="fine_tune", spec=fine_tune(make_dataset(database, 1)))
    job = take(database, register(database, settings))
    saved = [save(store, 20), save(store, 10)]
    with database.write() as session:
        job = Attempt(job.id, 1).tell(session, "log", {"message": "saved"}, checkpoints=saved)
        needed = inputs.look_up(session, job)
    harm(store, "saved/20")
    (tmp_path / "room").mkdir()
    (tmp_path / "another").mkdir()
    run = inputs.lay_out(needed, job, database, store, settings, tmp_path / "room")
    assert run.roll == f"{run.cache}/rolls/{job.spec['dataset']}"
    assert run.checkpoint is not None
    kept = Path(run.checkpoint)
    assert kept.name == "step-00000010"
    assert (kept / "tensors").read_bytes() == b"tensors of step 10"
    assert list(kept.parent.iterdir()) == [kept]
    harm(store, "saved/10")
    again = inputs.lay_out(needed, job, database, store, settings, tmp_path / "another")
    assert again.checkpoint is None


def add_base(settings: Settings, database: Database, worker: str) -> BaseModel:
    """``mine``, held by a worker that tells so."""
    base = catalogue.add("mine", bases.NANO_SSD_1B, settings, lambda _: None)
    with database.write() as session:
        session.get_one(Worker, worker).bases = [*BASES, "mine"]
    return base


def test_an_added_base_lies_in_the_home(
    database: Database, settings: Settings, tmp_path: Path
) -> None:
    base = add_base(settings, database, register(database, settings).id)
    job = submit(database, settings, spec=SPEC | {"base": "mine"})
    with database.read() as session:
        needed = inputs.look_up(session, job)
    (tmp_path / "room").mkdir()
    run = inputs.lay_out(needed, job, database, Store.of(settings), settings, tmp_path / "room")
    assert (run.base.id, run.base.embedded, run.base.unet) == ("mine", False, None)
    assert run.base.folder == str(settings.models_path / "added" / str(base.place))


def test_other_weights_of_the_same_name_are_not_taken_for_it(
    database: Database, settings: Settings, tmp_path: Path
) -> None:
    base = add_base(settings, database, register(database, settings).id)
    job = submit(database, settings, spec=SPEC | {"base": "mine"})
    place = bases.folder(base, settings)
    place.rename(place.with_name("mine@000000000000"))
    assert "mine" in bases.ids_here(settings)
    with database.read() as session:
        needed = inputs.look_up(session, job)
    (tmp_path / "room").mkdir()
    with pytest.raises(JobFailure, match="models remove mine") as refused:
        inputs.lay_out(needed, job, database, Store.of(settings), settings, tmp_path / "room")
    assert refused.value.code == "base_differs"


def test_a_unet_of_a_base_that_was_removed(database: Database, settings: Settings) -> None:
    """It may be what a student begins with: the teacher lends the rest."""
    add_base(settings, database, register(database, settings).id)
    unet = make_unet(database, teacher="mine")
    job = submit(database, settings, spec=SPEC | {"base": unet})
    with database.write() as session:
        session.delete(session.get_one(AddedBase, "mine"))
    with database.read() as session, pytest.raises(JobFailure, match="'mine'") as gone:
        inputs.look_up(session, job)
    assert gone.value.code == "input_gone"


@pytest.fixture
def imported(database: Database, settings: Settings, tmp_path: Path) -> str:
    """A dataset of ada's, of two pictures below ``pictures``."""
    for path in pictures.write(tmp_path / "pictures", 2):
        path.with_suffix(".txt").write_text(f"number {path.stem}")
    own = settings.model_copy(update={"import_roots": [tmp_path]})
    with database.write() as session:
        owners.create(session, owner="ada", name="hers", scopes=["write"])
    report = importer.import_folder(
        tmp_path / "pictures", own, lambda *_: None, name="x", owner="ada"
    )
    return report.dataset


def lay_out(job: Job, database: Database, settings: Settings, folder: Path) -> Run:
    folder.mkdir()
    with database.read() as session:
        needed = inputs.look_up(session, job)
    return inputs.lay_out(needed, job, database, Store.of(settings), settings, folder)


def test_imported_pictures_are_listed_and_not_copied(
    imported: str, database: Database, settings: Settings, tmp_path: Path
) -> None:
    job = submit(database, settings, kind="fine_tune", spec=fine_tune(imported))
    run = lay_out(job, database, settings, tmp_path / "room")
    assert run.pictures
    listed = list(listing.read(Path(run.pictures)))
    assert [caption for _, caption in listed] == ["number 0", "number 1"]
    assert [picture.name for picture, _ in listed] == ["0.png", "1.png"]
    assert {path.name for path in (tmp_path / "room").iterdir()} == {"out", "pictures.jsonl"}


def test_a_host_without_the_folder_says_so_and_names_no_path(
    imported: str, database: Database, settings: Settings, tmp_path: Path
) -> None:
    job = submit(database, settings, kind="fine_tune", spec=fine_tune(imported))
    (tmp_path / "pictures").rename(tmp_path / "unmounted")
    with pytest.raises(JobFailure, match=f"{imported} was imported from") as refused:
        lay_out(job, database, settings, tmp_path / "room")
    assert refused.value.code == "dataset_not_here"
    assert str(tmp_path) not in refused.value.detail


def test_a_drawing_may_begin_with_an_imported_picture(
    imported: str, database: Database, settings: Settings, tmp_path: Path
) -> None:
    with database.read() as session:
        first, _ = datasets.images_of(session, datasets.get(session, "ada", imported))
    image = {"dataset": imported, "image": first.id, "strength": 0.5}
    job = submit(database, settings, spec=SPEC | {"image": image})
    run = lay_out(job, database, settings, tmp_path / "room")
    assert run.start_picture
    assert run.start_picture.sha256 == first.sha256
    with Image.open(run.start_picture.path) as laid, Image.open(tmp_path / "pictures/0.png") as own:
        assert ImageChops.difference(laid, own).getbbox() is None
