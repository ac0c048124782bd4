"""A LoRA that is brought: kept as it was sent, once, and not at all where it is refused."""

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from core import crash
from core.artifacts import intake, service
from core.artifacts.intake import Upload
from core.artifacts.store import Store
from core.config import Settings
from core.db.engine import Database
from core.db.models import Artifact, now
from core.errors import TooLarge, Unprocessable
from core.owners import service as owners
from tests.support import loras, uploads
from tests.support.jobs import submit

Files = Callable[[], list[Path]]
SENT = loras.file_of(loras.spelt(loras.kohya_sgm, loras.unet_pairs(rank=2), 1))
BROKEN = loras.file_of({"x": loras.unet_pairs()["unet", "down_blocks.1.attentions.0.proj_in"][0]})


@pytest.fixture
def store(settings: Settings) -> Store:
    return Store.of(settings)


@pytest.fixture
def files(settings: Settings) -> Files:
    def kept() -> list[Path]:
        return [path for path in settings.blobs_path.rglob("*") if path.is_file()]

    return kept


def receive(
    database: Database,
    store: Store,
    settings: Settings,
    content: bytes = SENT,
    owner: str = "ann",
    filename: str = "dog.safetensors",
    name: str | None = None,
) -> Artifact:
    upload = Upload(filename, io.BytesIO(content), name)
    return intake.receive(database, store, settings, owner=owner, upload=upload)


def test_it_is_kept_as_it_was_sent(
    any_database: Database, store: Store, settings: Settings, files: Files
) -> None:
    artifact = receive(any_database, store, settings, name="my dog")
    assert (artifact.kind, artifact.role, artifact.format) == ("lora", "lora", "kohya")
    assert (artifact.name, artifact.layout, artifact.base) == ("my dog", "ssd-1b", None)
    assert (artifact.bytes, artifact.sha256) == (len(SENT), uploads.sha256(SENT))
    assert (artifact.facts["rank"], artifact.facts["alpha"]) == (2, 1.0)
    (file,) = service.files_of(artifact)
    assert (file.path, file.sha256) == ("dog.safetensors", artifact.sha256)
    assert store.read(file.store_key) == SENT
    assert file.store_key.split("/")[1] == artifact.id
    assert len(files()) == 1


def test_the_same_bytes_are_the_same_artifact_to_one_owner(
    any_database: Database, store: Store, settings: Settings, files: Files
) -> None:
    first = receive(any_database, store, settings)
    again = receive(any_database, store, settings, name="other", filename="x")
    assert (again.id, again.name) == (first.id, "dog.safetensors")
    other = receive(any_database, store, settings, owner="bob")
    assert other.id != first.id
    assert len(files()) == 2


def test_one_whose_time_is_up_is_brought_anew(
    any_database: Database, store: Store, settings: Settings
) -> None:
    first = receive(any_database, store, settings)
    with any_database.write() as session:
        session.get_one(Artifact, first.id).expires_at = now() - timedelta(seconds=1)
    assert receive(any_database, store, settings).id != first.id


def test_two_at_once_make_one(
    any_database: Database, store: Store, settings: Settings, files: Files
) -> None:
    with any_database.write() as session:
        owners.create(session, owner="ann", name="key", scopes=["write"])
    with ThreadPoolExecutor(6) as threads:
        sent = [threads.submit(receive, any_database, store, settings) for _ in range(6)]
        answers = [each.result() for each in sent]
    assert len({artifact.id for artifact in answers}) == 1
    assert len(files()) == 1


def test_what_a_job_made_is_another_thing(
    any_database: Database, store: Store, settings: Settings
) -> None:
    """It may be forgotten with its job."""
    first = receive(any_database, store, settings)
    job = submit(any_database, settings, owner="ann")
    with any_database.write() as session:
        session.execute(update(Artifact).where(Artifact.id == first.id).values(job_id=job.id))
    assert receive(any_database, store, settings).id != first.id


def test_what_is_refused_leaves_nothing(
    database: Database, store: Store, settings: Settings, files: Files
) -> None:
    with pytest.raises(Unprocessable):
        receive(database, store, settings, BROKEN)
    small = settings.model_copy(update={"max_lora_bytes": len(SENT) - 1})
    with pytest.raises(TooLarge, match=r"dog\.safetensors has"):
        receive(database, store, small)
    receive(database, store, settings.model_copy(update={"max_lora_bytes": len(SENT)}))
    assert len(files()) == 1


def test_a_row_that_cannot_be_written_leaves_no_file(
    database: Database, store: Store, settings: Settings, files: Files,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def broken(place: str) -> None:
        if place == "inside an upload of a LoRA":
            raise OSError("no more")

    monkeypatch.setattr(crash, "point", broken)
    with pytest.raises(OSError, match="no more"):
        receive(database, store, settings)
    assert files() == []


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("dog.safetensors", "dog.safetensors"),
        ("../../etc/dog", "dog.safetensors"),
        ("C:\\loras\\dog.safetensors", "dog.safetensors"),
        ("", "lora.safetensors"),
        ("/", "lora.safetensors"),
        ("\ud800\0.safetensors", "\ufffd\ufffd.safetensors"),
        ("x" * 400, "x" * 200 + ".safetensors"),
    ],
)
def test_names_are_text(
    sent: str, kept: str, database: Database, store: Store, settings: Settings
) -> None:
    artifact = receive(database, store, settings, filename=sent)
    assert artifact.files[0]["path"] == artifact.name == kept
