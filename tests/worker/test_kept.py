"""Files of artifacts on a worker's disk."""

import os
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

from core.artifacts.service import StoredFile
from core.artifacts.store import Store
from core.config import Settings
from core.db.models import Artifact
from core.errors import NotFound
from worker import kept


@pytest.fixture
def store(settings: Settings) -> Store:
    return Store.of(settings)


def put(store: Store, artifact_id: str) -> Artifact:
    files = []
    for name in ("config.json", "diffusion_pytorch_model.safetensors"):
        content = f"{name} of {artifact_id}".encode()
        key = f"{artifact_id}/{name}"
        store.put_bytes(key, content)
        files.append(asdict(StoredFile(f"unet/{name}", len(content), "0" * 64, key)))
    return Artifact(id=artifact_id, files=files)


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    return tmp_path / "unets"


def test_a_unet_is_fetched_once(store: Store, shared: Path, tmp_path: Path) -> None:
    artifact = put(store, "art_1")
    kept.lay_out(shared, artifact, store, tmp_path / "first", kept=2)
    assert {path.name for path in (tmp_path / "first").iterdir()} == {
        *("config.json", "diffusion_pytorch_model.safetensors"),
    }
    store.delete_prefix("art_1")
    kept.lay_out(shared, artifact, store, tmp_path / "second", kept=2)
    assert (tmp_path / "second" / "config.json").read_text() == "config.json of art_1"
    assert [path.name for path in shared.iterdir()] == ["art_1"]


def test_what_is_swept_stays_with_whoever_works_with_it(
    store: Store, shared: Path, tmp_path: Path
) -> None:
    for number in range(3):
        name = f"art_{number}"
        kept.lay_out(shared, put(store, name), store, tmp_path / name, kept=2)
        os.utime(shared / name, (number, number))
    assert {path.name for path in shared.iterdir()} == {"art_1", "art_2"}
    assert (tmp_path / "art_0" / "config.json").read_text() == "config.json of art_0"


def test_a_fetch_that_fails_leaves_no_folder_that_looks_whole(
    store: Store, shared: Path, tmp_path: Path
) -> None:
    artifact = put(store, "art_1")
    lost = Artifact(id="art_1", files=[artifact.files[0], artifact.files[1] | {"store_key": "no"}])
    with pytest.raises(NotFound):
        kept.lay_out(shared, lost, store, tmp_path / "mine", kept=2)
    assert not (shared / "art_1").exists()
    (left,) = shared.iterdir()
    os.utime(left, (0, 0))
    kept.lay_out(shared, artifact, store, tmp_path / "mine", kept=2)
    assert [path.name for path in shared.iterdir()] == ["art_1"]


def test_another_worker_may_be_faster_or_sweep_meanwhile(
    store: Store, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = put(store, "art_1")
    fetch, link = Store.fetch, os.link

    def fetch_while_another_lays_out(store: Store, key: str, path: Path) -> None:
        fetch(store, key, path)
        (shared / "art_1").mkdir(exist_ok=True)
        (shared / "art_1" / "config.json").write_text("theirs")

    def link_while_another_sweeps(there: Path, mine: Path) -> None:
        link(there, mine)
        if there.parent.name == "art_1":
            shutil.rmtree(there.parent)

    monkeypatch.setattr(Store, "fetch", fetch_while_another_lays_out)
    kept.lay_out(shared, artifact, store, tmp_path / "first", kept=2)
    monkeypatch.setattr(Store, "fetch", fetch)
    monkeypatch.setattr(os, "link", link_while_another_sweeps)
    kept.lay_out(shared, artifact, store, tmp_path / "second", kept=2)
    for folder in ("first", "second"):
        assert (tmp_path / folder / "config.json").read_text() == "config.json of art_1"
        assert len(list((tmp_path / folder).iterdir())) == 2
