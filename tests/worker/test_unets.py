"""UNets of artifacts on a worker's disk."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from core.artifacts.service import StoredFile
from core.artifacts.store import Store
from core.config import Settings
from core.errors import NotFound
from worker import unets


@pytest.fixture
def store(settings: Settings) -> Store:
    return Store.of(settings)


def put(store: Store, artifact_id: str) -> list[StoredFile]:
    files = []
    for name in ("config.json", "diffusion_pytorch_model.safetensors"):
        content = f"{name} of {artifact_id}".encode()
        key = f"{artifact_id}/{name}"
        store.put_bytes(key, content)
        files.append(StoredFile(f"unet/{name}", len(content), "0" * 64, key))
    return files


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    return tmp_path / "unets"


def test_a_unet_is_fetched_once(store: Store, shared: Path, tmp_path: Path) -> None:
    files = put(store, "art_1")
    unets.lay_out(shared, "art_1", files, store, tmp_path / "first")
    assert {path.name for path in (tmp_path / "first").iterdir()} == {
        *("config.json", "diffusion_pytorch_model.safetensors"),
    }
    store.delete_prefix("art_1")
    unets.lay_out(shared, "art_1", files, store, tmp_path / "second")
    assert (tmp_path / "second" / "config.json").read_text() == "config.json of art_1"
    assert [path.name for path in shared.iterdir()] == ["art_1"]


def test_what_is_swept_stays_with_whoever_works_with_it(
    store: Store, shared: Path, tmp_path: Path
) -> None:
    files = {f"art_{number}": put(store, f"art_{number}") for number in range(unets.KEPT + 1)}
    for number, (artifact_id, stored) in enumerate(files.items()):
        unets.lay_out(shared, artifact_id, stored, store, tmp_path / artifact_id)
        os.utime(shared / artifact_id, (number, number))
    unets.lay_out(shared, "art_1", files["art_1"], store, tmp_path / "again")
    assert {path.name for path in shared.iterdir()} == set(files) - {"art_0"}
    assert (tmp_path / "art_0" / "config.json").read_text() == "config.json of art_0"


def test_a_fetch_that_fails_leaves_no_folder_that_looks_whole(
    store: Store, shared: Path, tmp_path: Path
) -> None:
    files = put(store, "art_1")
    lost = replace(files[1], store_key="art_1/lost")
    with pytest.raises(NotFound):
        unets.lay_out(shared, "art_1", [files[0], lost], store, tmp_path / "mine")
    assert not (shared / "art_1").exists()
    (left,) = shared.iterdir()
    os.utime(left, (0, 0))
    unets.lay_out(shared, "art_1", files, store, tmp_path / "mine")
    assert [path.name for path in shared.iterdir()] == ["art_1"]


def test_another_worker_may_be_faster_or_sweep_meanwhile(
    store: Store, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = put(store, "art_1")
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
    unets.lay_out(shared, "art_1", files, store, tmp_path / "first")
    monkeypatch.setattr(Store, "fetch", fetch)
    monkeypatch.setattr(os, "link", link_while_another_sweeps)
    unets.lay_out(shared, "art_1", files, store, tmp_path / "second")
    for folder in ("first", "second"):
        assert (tmp_path / folder / "config.json").read_text() == "config.json of art_1"
        assert len(list((tmp_path / folder).iterdir())) == 2
