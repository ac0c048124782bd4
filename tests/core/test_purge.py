"""A home keeps nothing of what is gone, and all that is in use."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import select

from core import purge
from core.artifacts.store import Store
from core.config import Settings
from core.datasets import removal
from core.db.engine import Database
from core.db.models import Dataset, Deletion, Image
from core.errors import Unavailable
from core.files.roll import Roll
from tests.core.jobs.test_service import make_dataset, make_lora
from tests.core.test_retention import look


def cached(settings: Settings, key: str, *datasets: str, owner: str = "ada") -> Path:
    """A row of an owner's cache that these datasets use."""
    folder = settings.cache_path / owner
    for dataset in datasets:
        Roll.of(folder, dataset).add(key)
    path = folder / key[:2] / f"{key}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def fetched(shared: Path, artifact_id: str) -> Path:
    folder = shared / artifact_id
    folder.mkdir()
    (folder / "file").write_bytes(b"x")
    return folder


def test_rows_of_a_dataset_that_is_gone_go_unless_another_uses_them(
    any_database: Database, settings: Settings
) -> None:
    gone, kept = make_dataset(any_database, 1), make_dataset(any_database, 1)
    own = cached(settings, "own", gone)
    shared, others = cached(settings, "shared", gone, kept), cached(settings, "others", kept)
    bobs = cached(settings, "bobs", kept, owner="bob")
    purge.sweep_home(any_database, settings)
    assert own.exists()
    with any_database.write() as session:
        removal.remove(session, "ada", gone)
    purge.sweep_home(any_database, settings)
    assert not own.exists()
    assert all(path.exists() for path in (shared, others, bobs))


def test_files_of_artifacts_that_are_gone_go(any_database: Database, settings: Settings) -> None:
    lora = make_lora(any_database, "nano-ssd-1b")
    kept = fetched(settings.loras_path, lora)
    gone = [fetched(path, "art_gone") for path in (settings.loras_path, settings.unets_path)]
    purge.sweep_home(any_database, settings)
    assert kept.exists()
    assert not any(folder.exists() for folder in gone)


def test_retention_finds_rows_that_nobody_ever_named(
    any_database: Database, settings: Settings
) -> None:
    nobodys = cached(settings, "nobodys")
    named = cached(settings, "named", make_dataset(any_database, 1))
    purge.sweep_home(any_database, settings)
    assert nobodys.exists()
    look(any_database, settings)
    assert not nobodys.exists()
    assert named.exists()


FINISH = """
from core import purge
from core.artifacts.store import Store
from core.config import Settings
from core.db.engine import Database

settings = Settings()
purge.finish(Database.of(settings), Store.of(settings), settings)
"""


@pytest.mark.parametrize("label", ["a part of a dataset gone", "rolls struck off", "files gone"])
def test_whoever_dies_in_between_leaves_it_to_the_next(
    label: str, any_database: Database, settings: Settings, tmp_path: Path
) -> None:
    store, dataset = Store.of(settings), make_dataset(any_database, 1)
    store.put_bytes(f"datasets/{dataset}/img.png", b"x")
    row = cached(settings, "row", dataset)
    with any_database.write() as session:
        removal.remove(session, "ada", dataset)
    environment = os.environ | {
        "STILLROOM_HOME": str(settings.root),
        "STILLROOM_DATABASE_URL": any_database.engine.url.render_as_string(hide_password=False),
        "STILLROOM_CRASH_AT": f"retention: {label}",
        "STILLROOM_CRASH_MARK": str(tmp_path / "mark"),
    }
    for code in (137, 0):
        command = [sys.executable, "-c", FINISH]
        ended = subprocess.run(command, env=environment, check=False, capture_output=True)
        assert ended.returncode == code, ended.stderr.decode()
    assert not row.exists()
    assert list(settings.blobs_path.rglob("*.png")) == []
    with any_database.read() as session:
        for table in (Dataset, Image, Deletion):
            assert list(session.scalars(select(table))) == []


def test_a_store_that_is_away_is_asked_again(
    any_database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, dataset = Store.of(settings), make_dataset(any_database, 1)
    store.put_bytes(f"datasets/{dataset}/img.png", b"x")
    with any_database.write() as session:
        removal.remove(session, "ada", dataset)

    def away(*_: object) -> None:
        raise Unavailable("The store does not answer.")

    with monkeypatch.context() as patched:
        patched.setattr(Store, "delete_prefix", away)
        purge.finish(any_database, store, settings)
    assert store.size(f"datasets/{dataset}/img.png") == 1
    purge.finish(any_database, store, settings)
    with any_database.read() as session:
        assert list(session.scalars(select(Deletion))) == []
    assert list(settings.blobs_path.rglob("*.png")) == []
